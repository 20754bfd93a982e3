"""The selective scan as torch operators, forward and backward, so that torch.compile and autocast see one node each.

No matrix product belongs to the scan, so torch's FLOP counter has nothing to count in it.
"""

from typing import Any

import torch
from torch import Tensor

from seqbench_kernels.arguments import wants_gradient
from seqbench_kernels.selective_scan.cpu import scan_backward, scan_forward, starts_shape


@torch.library.custom_op("seqbench::selective_scan", mutates_args=())
def _scan(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial_state: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return scan_forward(u, dt, A, B, C, D, initial_state, keep)


@_scan.register_fake
def _(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial_state: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    state = u.new_empty(u.shape[0], u.shape[2], A.shape[1])
    return u.new_empty(u.shape), state, u.new_empty(starts_shape(u, A, keep))


@torch.library.custom_op("seqbench::selective_scan_backward", mutates_args=())
def _scan_backward(
    outputs_gradient: Tensor,
    state_gradient: Tensor | None,
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    starts: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return scan_backward(outputs_gradient, state_gradient, u, dt, A, B, C, D, starts)


@_scan_backward.register_fake
def _(outputs_gradient: Tensor, state_gradient: Tensor | None, *others: Tensor) -> tuple[Tensor, ...]:
    u, _, A, *_ = inputs = others[:6]
    return *(tensor.new_empty(tensor.shape) for tensor in inputs), u.new_empty(u.shape[0], u.shape[2], A.shape[1])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, initial_state, keep = inputs
    assert keep, "the states that the backward pass starts from were not kept"
    ctx.has_initial_state = initial_state is not None
    ctx.save_for_backward(*tensors, output[2])
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, outputs_gradient: Tensor | None, state_gradient: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, ...]:
    u, *others = ctx.saved_tensors
    if outputs_gradient is None:
        outputs_gradient = torch.zeros_like(u)
    gradients = _scan_backward(outputs_gradient, state_gradient, u, *others)
    return *gradients[:6], gradients[6] if ctx.has_initial_state else None, None


_scan.register_autograd(_differentiate, setup_context=_setup_context)
# Under autocast the scan stays in fp32, forward and backward.
for _device in ("cpu", "cuda"):
    _scan.register_autocast(_device, torch.float32)
    _scan_backward.register_autocast(_device, torch.float32)


def selective_scan_loop(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The selective scan of `selective_scan`, all arguments of one floating-point dtype; any device.

    Gradients reach every argument, from the outputs and from the final state. First derivatives only.
    """
    keep = wants_gradient(u, dt, A, B, C, D, initial_state)
    outputs, final_state, _ = _scan(u, dt, A, B, C, D, initial_state, keep)
    return outputs, final_state
