"""The grouped phase scan as torch operators, forward and backward: torch.compile and autocast see one node each.

No matrix product belongs to them, so torch's FLOP counter has nothing to count. The final table carries no gradient.
"""

from typing import Any

import torch
from torch import Tensor

from seqbench_kernels.grouped_gradients import grouped_gradients
from seqbench_kernels.phase_scan import cpu, triton_path


@torch.library.custom_op("seqbench::phase_scan", mutates_args=())
def scan(
    increments: Tensor,
    groups: Tensor | None,
    number_of_groups: int,
    initial: Tensor | None,
    scale_gradient: bool,
    path: str,
) -> tuple[Tensor, Tensor]:
    """`phase_scan` by its path "cpu" or "triton": the phases and the final table."""
    del scale_gradient
    forward = triton_path.scan if path == "triton" else cpu.scan
    return forward(increments, groups, number_of_groups, initial)


@scan.register_fake
def _(
    increments: Tensor,
    groups: Tensor | None,
    number_of_groups: int,
    initial: Tensor | None,
    scale_gradient: bool,
    path: str,
) -> tuple[Tensor, Tensor]:
    batch, _, channels = increments.shape
    phases = increments.new_empty(increments.shape, dtype=torch.float32)
    return phases, increments.new_empty(batch, number_of_groups, channels, dtype=torch.int32)


@torch.library.custom_op("seqbench::phase_scan_backward", mutates_args=())
def scan_backward(
    gradient: Tensor, groups: Tensor | None, number_of_groups: int, scale_gradient: bool, with_initial: bool, path: str
) -> tuple[Tensor, Tensor]:
    """Gradients of the increments, in the dtype of `gradient`, and of the initial table in radians, fp64.

    Without `with_initial` the second is an empty tensor.
    """
    if path == "triton":
        return triton_path.scan_gradient(gradient, groups, number_of_groups, scale_gradient, with_initial)
    return grouped_gradients(gradient, groups, number_of_groups, scale_gradient, with_initial)


@scan_backward.register_fake
def _(
    gradient: Tensor, groups: Tensor | None, number_of_groups: int, scale_gradient: bool, with_initial: bool, path: str
) -> tuple[Tensor, Tensor]:
    batch, _, channels = gradient.shape
    shape = (batch, number_of_groups, channels) if with_initial else (0,)
    return gradient.new_empty(gradient.shape), gradient.new_empty(shape, dtype=torch.float64)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    increments, groups, ctx.number_of_groups, initial, ctx.scale_gradient, ctx.path = inputs
    ctx.save_for_backward(groups)
    ctx.dtype = increments.dtype
    ctx.initial_dtype = None if initial is None else initial.dtype


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    (groups,) = ctx.saved_tensors
    with_initial = ctx.needs_input_grad[3]
    by_increments, by_initial = scan_backward(
        gradient, groups, ctx.number_of_groups, ctx.scale_gradient, with_initial, ctx.path
    )
    initial_gradient = by_initial.to(ctx.initial_dtype) if with_initial else None
    return by_increments.to(ctx.dtype), None, None, initial_gradient, None, None


scan.register_autograd(_differentiate, setup_context=_setup_context)
