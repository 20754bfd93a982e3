"""Grouped sum by sorting: linear in tokens but for the sort, accumulated in fp64.

For states that grow, where the phase scan's wrapped whole numbers do not serve: after a million increments of mean 1 an
fp32 sum moves in steps of 0.06.
"""

from typing import Any

import torch
from torch import Tensor

from seqbench_kernels.segments import Segments, running_sums, running_sums_gradient, sort_by_group


def grouped_sum(
    increments: Tensor,
    groups: Tensor | None,
    number_of_groups: int,
    initial: Tensor | None = None,
    scale_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """z_t = z_0[g_t] + sum of the increments of the tokens tau <= t of the row that are in group g_t.

    Args:
        increments: (batch, length, channels), fp32 or fp64.
        groups: (batch, length) int64 group of each token; `number_of_groups` itself marks padding, which enters no
            sum. None puts every token into group 0.
        number_of_groups: rows of the state table.
        initial: z_0, (batch, groups, channels), fp64 as the sum returns it; gradients flow through it unscaled. None
            is zero.
        scale_gradient: divide the gradient that reaches the increment of a token by sqrt(c), c the number of tokens
            of the same row and group in this call, as `phase_scan` does.

    Returns:
        The sums z, (batch, length, channels) in the dtype of the increments, and the final table, (batch, groups,
        channels) fp64: for each group the z of its last token, or z_0 where it had none. The table carries no
        gradient. What stands at padding is a sum over padding and of no use.
    """
    if groups is None:
        groups = torch.zeros(increments.shape[:2], dtype=torch.int64, device=increments.device)
    return _GroupedSum.apply(increments, groups, number_of_groups, initial, scale_gradient)


class _GroupedSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        increments: Tensor,
        groups: Tensor,
        number_of_groups: int,
        initial: Tensor | None,
        scale_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        segments = sort_by_group(groups)
        ordered = segments.sort(increments).to(torch.float64)
        sums, final = running_sums(ordered, segments, number_of_groups, initial)
        ctx.save_for_backward(*segments)
        ctx.scale_gradient, ctx.number_of_groups = scale_gradient, number_of_groups
        ctx.initial_dtype = None if initial is None else initial.dtype
        ctx.mark_non_differentiable(final)
        return segments.unsort(sums.to(increments.dtype)), final

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        initial_groups = ctx.number_of_groups if ctx.needs_input_grad[3] else None
        increment_gradient, initial_gradient = running_sums_gradient(
            gradients[0], Segments(*ctx.saved_tensors), initial_groups, ctx.scale_gradient
        )
        if initial_gradient is not None:
            initial_gradient = initial_gradient.to(ctx.initial_dtype)
        return increment_gradient, None, None, initial_gradient, None
