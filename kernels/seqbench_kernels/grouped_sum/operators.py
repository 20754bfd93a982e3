"""The grouped sum as torch operators, forward and backward: torch.compile and autocast see one node each.

No matrix product belongs to them, so torch's FLOP counter has nothing to count. The final table carries no gradient.
"""

from typing import Any

import torch
from torch import Tensor

from seqbench_kernels.grouped_gradients import grouped_gradients
from seqbench_kernels.grouped_sum import cpu


@torch.library.custom_op("seqbench::grouped_sum", mutates_args=())
def sums(
    increments: Tensor, groups: Tensor | None, number_of_groups: int, initial: Tensor | None, scale_gradient: bool
) -> tuple[Tensor, Tensor]:
    """`grouped_sum` by its path "cpu"."""
    del scale_gradient
    return cpu.sums(increments, groups, number_of_groups, initial)


@sums.register_fake
def _(
    increments: Tensor, groups: Tensor | None, number_of_groups: int, initial: Tensor | None, scale_gradient: bool
) -> tuple[Tensor, Tensor]:
    batch, _, channels = increments.shape
    table = increments.new_empty(batch, number_of_groups, channels, dtype=torch.float64)
    return increments.new_empty(increments.shape), table


@torch.library.custom_op("seqbench::grouped_sum_backward", mutates_args=())
def sums_backward(
    gradient: Tensor, groups: Tensor | None, number_of_groups: int, scale_gradient: bool, with_initial: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of the increments, in the dtype of `gradient`, and of the initial table, fp64.

    Without `with_initial` the second is an empty tensor.
    """
    return grouped_gradients(gradient, groups, number_of_groups, scale_gradient, with_initial)


@sums_backward.register_fake
def _(
    gradient: Tensor, groups: Tensor | None, number_of_groups: int, scale_gradient: bool, with_initial: bool
) -> tuple[Tensor, Tensor]:
    batch, _, channels = gradient.shape
    shape = (batch, number_of_groups, channels) if with_initial else (0,)
    return gradient.new_empty(gradient.shape), gradient.new_empty(shape, dtype=torch.float64)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, groups, ctx.number_of_groups, initial, ctx.scale_gradient = inputs
    ctx.save_for_backward(groups)
    ctx.initial_dtype = None if initial is None else initial.dtype


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    (groups,) = ctx.saved_tensors
    with_initial = ctx.needs_input_grad[3]
    by_increments, by_initial = sums_backward(gradient, groups, ctx.number_of_groups, ctx.scale_gradient, with_initial)
    return by_increments, None, None, by_initial.to(ctx.initial_dtype) if with_initial else None, None


sums.register_autograd(_differentiate, setup_context=_setup_context)
