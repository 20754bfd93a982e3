"""The chunked form as torch operators: one node each way for torch.compile, FLOP counting and autocast."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from seqbench_kernels.arguments import wants_gradient
from seqbench_kernels.decayed_linear_attention.cpu import attention_forward, starts_shape
from seqbench_kernels.decayed_linear_attention.flops import backward_flops, forward_flops
from seqbench_kernels.decayed_linear_attention.gradient import attention_backward


@torch.library.custom_op("seqbench::decayed_linear_attention", mutates_args=())
def _attention(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, initial_state: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return attention_forward(q, k, v, log_decay, initial_state, keep)


@_attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, initial_state: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    batch, _, heads, key_size = q.shape
    state = v.new_empty(batch, heads, key_size, v.shape[3])
    return v.new_empty(v.shape), state, v.new_empty(starts_shape(q, v, keep))


@torch.library.custom_op("seqbench::decayed_linear_attention_backward", mutates_args=())
def _attention_backward(
    outputs_gradient: Tensor,
    state_gradient: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    final_state: Tensor,
    starts: Tensor,
    has_initial_state: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return attention_backward(
        outputs_gradient, state_gradient, q, k, v, log_decay, final_state, starts, has_initial_state
    )


@_attention_backward.register_fake
def _(
    outputs_gradient: Tensor,
    state_gradient: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    final_state: Tensor,
    starts: Tensor,
    has_initial_state: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    by_log = q.real.new_empty(0) if log_decay is None else log_decay.new_empty(log_decay.shape)
    by_q, by_k, by_v, by_state = (tensor.new_empty(tensor.shape) for tensor in (q, k, v, final_state))
    return by_q, by_k, by_v, by_log, by_state


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    q, k, v, log_decay, initial_state, keep = inputs
    assert keep, "the states that the backward pass starts from were not kept"
    ctx.save_for_backward(q, k, v, log_decay, *output[1:])
    ctx.has_initial_state = initial_state is not None
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, outputs_gradient: Tensor | None, state_gradient: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, ...]:
    q, k, v, log_decay, final_state, starts = ctx.saved_tensors
    if outputs_gradient is None:
        outputs_gradient = torch.zeros_like(v)
    *gradients, by_log, by_state = _attention_backward(
        outputs_gradient, state_gradient, q, k, v, log_decay, final_state, starts, ctx.has_initial_state
    )
    return *gradients, None if log_decay is None else by_log, by_state if ctx.has_initial_state else None, None


_attention.register_autograd(_differentiate, setup_context=_setup_context)
# Under autocast it stays in fp32, forward and backward.
for _device in ("cpu", "cuda"):
    _attention.register_autocast(_device, torch.float32)
    _attention_backward.register_autocast(_device, torch.float32)


# Of the tensors themselves, not their shapes alone: complex products are counted as the four real ones they are.
@register_flop_formula(torch.ops.seqbench.decayed_linear_attention, get_raw=True)
def _forward_formula(q: Tensor, k: Tensor, v: Tensor, log_decay: Any, initial_state: Any, *_: Any, **__: Any) -> int:
    return q.shape[0] * forward_flops(*_sizes(q, v), initial_state is not None, q.is_complex())


@register_flop_formula(torch.ops.seqbench.decayed_linear_attention_backward, get_raw=True)
def _backward_formula(gradient: Any, state_gradient: Any, q: Tensor, k: Tensor, v: Tensor, *rest: Any, **_: Any) -> int:
    has_initial_state = rest[-1]
    return q.shape[0] * backward_flops(*_sizes(q, v), has_initial_state, state_gradient is not None, q.is_complex())


def _sizes(q: Tensor, v: Tensor) -> tuple[int, int, int, int]:
    return q.shape[1], q.shape[2], q.shape[3], v.shape[3]


def decayed_linear_attention_chunked(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None = None, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """As `decayed_linear_attention`, arguments of one precision; any device.

    Gradients reach every argument, from the outputs and from the final state. First derivatives only.
    """
    keep = wants_gradient(q, k, v, log_decay, initial_state)
    if log_decay is not None and log_decay.dim() == 3:
        log_decay = log_decay.unsqueeze(-1)
    outputs, final_state, _ = _attention(q, k, v, log_decay, initial_state, keep)
    return outputs, final_state
