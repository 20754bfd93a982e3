"""The chunked delta rule as torch operators: one node each way for torch.compile, FLOP counting and autocast."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from seqbench_kernels.arguments import wants_gradient
from seqbench_kernels.delta_rule.cpu import rule_forward, starts_shape
from seqbench_kernels.delta_rule.flops import backward_flops, forward_flops
from seqbench_kernels.delta_rule.gradient import rule_backward


@torch.library.custom_op("seqbench::delta_rule", mutates_args=())
def _rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    strength: Tensor,
    initial_state: Tensor | None,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return rule_forward(query, key, value, log_decay, strength, initial_state, keep)


@_rule.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    strength: Tensor,
    initial_state: Tensor | None,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    starts = starts_shape(key, value, log_decay, keep)
    return value.new_empty(value.shape), value.new_empty(starts[1:]), value.new_empty(starts)


@torch.library.custom_op("seqbench::delta_rule_backward", mutates_args=())
def _rule_backward(
    outputs_gradient: Tensor,
    final_gradient: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    strength: Tensor,
    starts: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return rule_backward(outputs_gradient, final_gradient, query, key, value, log_decay, strength, starts)


@_rule_backward.register_fake
def _(
    outputs_gradient: Tensor,
    final_gradient: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    strength: Tensor,
    starts: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    query, key, value, strength = (tensor.new_empty(tensor.shape) for tensor in (query, key, value, strength))
    decay = key.new_empty(0 if log_decay is None else log_decay.shape)
    return query, key, value, decay, strength, starts.new_empty(starts.shape[1:])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, initial_state, keep = inputs
    assert keep, "the states that the backward pass starts from were not kept"
    ctx.save_for_backward(*tensors, output[2])
    ctx.has_initial_state = initial_state is not None
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, outputs_gradient: Tensor | None, final_gradient: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, ...]:
    *tensors, starts = ctx.saved_tensors
    if outputs_gradient is None:
        outputs_gradient = torch.zeros_like(tensors[2])
    *gradients, initial = _rule_backward(outputs_gradient, final_gradient, *tensors, starts)
    if tensors[3] is None:
        gradients[3] = None
    return *gradients, initial if ctx.has_initial_state else None, None


_rule.register_autograd(_differentiate, setup_context=_setup_context)
# Under autocast the rule stays in fp32, forward and backward.
for _device in ("cpu", "cuda"):
    _rule.register_autocast(_device, torch.float32)
    _rule_backward.register_autocast(_device, torch.float32)


@register_flop_formula(torch.ops.seqbench.delta_rule)
def _forward_formula(*arguments: Any, out_shape: Any = None) -> int:
    """Of the operator's arguments, shapes in place of tensors; the other formula likewise."""
    _, key, value, log_decay, *_ = arguments
    batch, length, heads, key_size = key
    return batch * forward_flops(length, heads, key_size, value[-1], _per_channel(log_decay))


@register_flop_formula(torch.ops.seqbench.delta_rule_backward)
def _backward_formula(*arguments: Any, out_shape: Any = None) -> int:
    _, _, _, key, value, log_decay, *_ = arguments
    batch, length, heads, key_size = key
    return batch * backward_flops(length, heads, key_size, value[-1], _per_channel(log_decay))


def _per_channel(log_decay: Any) -> bool:
    return log_decay is not None and len(log_decay) == 4


def delta_rule_chunked(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    strength: Tensor,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The rule of `delta_rule`, all arguments of one floating-point dtype; any device.

    Gradients reach every argument, from the outputs and from the final state. First derivatives only.
    """
    keep = wants_gradient(query, key, value, log_decay, strength, initial_state)
    outputs, final, _ = _rule(query, key, value, log_decay, strength, initial_state, keep)
    return outputs, final
