"""The chunked scan as torch operators: one node each way for torch.compile, FLOP counting and autocast."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from seqbench_kernels.arguments import wants_gradient
from seqbench_kernels.ssd_scan.cpu import scan_forward, starts_shape
from seqbench_kernels.ssd_scan.flops import backward_flops, forward_flops
from seqbench_kernels.ssd_scan.gradient import scan_backward


@torch.library.custom_op("seqbench::ssd_scan", mutates_args=())
def _scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial_state: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return scan_forward(x, dt, A, B, C, D, initial_state, keep)


@_scan.register_fake
def _(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial_state: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    state = x.new_empty(x.shape[0], x.shape[2], x.shape[3], B.shape[3])
    return x.new_empty(x.shape), state, x.new_empty(starts_shape(x, B, keep))


@torch.library.custom_op("seqbench::ssd_scan_backward", mutates_args=())
def _scan_backward(
    outputs_gradient: Tensor,
    state_gradient: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    initial_state: Tensor | None,
    outputs: Tensor,
    final_state: Tensor,
    starts: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return scan_backward(
        outputs_gradient, state_gradient, x, dt, A, B, C, D, initial_state, outputs, final_state, starts
    )


@_scan_backward.register_fake
def _(outputs_gradient: Tensor, state_gradient: Tensor | None, *others: Any) -> tuple[Tensor, ...]:
    x, dt, A, B, C, D, _, _, final_state, _ = others
    return tuple(tensor.new_empty(tensor.shape) for tensor in (x, dt, A, B, C, D, final_state))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, keep = inputs
    assert keep, "the states that the backward pass starts from were not kept"
    ctx.save_for_backward(*tensors, *output)
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, outputs_gradient: Tensor | None, state_gradient: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, ...]:
    x, dt, A, B, C, D, initial_state, outputs, final_state, starts = ctx.saved_tensors
    if outputs_gradient is None:
        outputs_gradient = torch.zeros_like(x)
    gradients = _scan_backward(
        outputs_gradient, state_gradient, x, dt, A, B, C, D, initial_state, outputs, final_state, starts
    )
    return *gradients[:6], None if initial_state is None else gradients[6], None


_scan.register_autograd(_differentiate, setup_context=_setup_context)
# Under autocast the scan stays in fp32, forward and backward.
for _device in ("cpu", "cuda"):
    _scan.register_autocast(_device, torch.float32)
    _scan_backward.register_autocast(_device, torch.float32)


@register_flop_formula(torch.ops.seqbench.ssd_scan)
def _forward_formula(*arguments: Any, out_shape: Any = None) -> int:
    """Of the operator's arguments, shapes in place of tensors; the other formula likewise."""
    (batch, length, heads, head_dim), _, _, B, _, _, initial_state, _ = arguments
    return batch * forward_flops(length, heads, head_dim, B[2], B[3], initial_state is not None)


@register_flop_formula(torch.ops.seqbench.ssd_scan_backward)
def _backward_formula(*arguments: Any, out_shape: Any = None) -> int:
    _, state_gradient, (batch, length, heads, head_dim), _, _, B, _, _, initial_state, *_ = arguments
    has_initial_state, has_state_gradient = initial_state is not None, state_gradient is not None
    return batch * backward_flops(length, heads, head_dim, B[2], B[3], has_initial_state, has_state_gradient)


def ssd_scan_chunked(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The scan of `ssd_scan`, all arguments of one floating-point dtype; any device.

    Gradients reach every argument, from the outputs and from the final state. First derivatives only.
    """
    keep = wants_gradient(x, dt, A, B, C, D, initial_state)
    outputs, final_state, _ = _scan(x, dt, A, B, C, D, initial_state, keep)
    return outputs, final_state
