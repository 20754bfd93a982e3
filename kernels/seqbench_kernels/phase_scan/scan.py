"""Grouped phase scan, by sorting where sequences are long: linear in tokens, exact sums in fixed point.

PMNet, arXiv 2605.13370: the recurrence of the write. The sum of fp32 increments is formed in whole steps of 2^-32
turns, so that it depends neither on the order of the tokens nor on how a sequence is cut into calls.
"""

from typing import Any

import torch
from torch import Tensor

from seqbench_kernels.phase_scan.short import SHORT_LENGTH, short_phase_scan
from seqbench_kernels.phase_scan.turns import pack_steps, radians_to_steps, steps_to_radians
from seqbench_kernels.segments import Segments, running_sums, running_sums_gradient, sort_by_group


def phase_scan(
    increments: Tensor,
    groups: Tensor | None,
    number_of_groups: int,
    initial: Tensor | None = None,
    scale_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """R_t = wrap(S_0[g_t] + sum of the increments of the tokens tau <= t of the row that are in group g_t).

    Args:
        increments: (batch, length, channels) fp32 radians.
        groups: (batch, length) int64 group of each token; `number_of_groups` itself marks padding, which enters no
            sum. None puts every token into group 0.
        number_of_groups: rows of the state table.
        initial: S_0, (batch, groups, channels): int32 in steps of 2^-32 turns as the scan returns it, or floating-point
            radians, through which gradients flow unscaled; None is zero.
        scale_gradient: divide the gradient that reaches the increment of a token by sqrt(c), c the number of tokens
            of the same row and group in this call (the published training rule).

    Returns:
        The phases R, (batch, length, channels) fp32 radians, and the final table, (batch, groups, channels) int32
        steps: for each group the R of its last token, or S_0 where it had none.
    """
    batch, length, _ = increments.shape
    if initial is None or initial.is_floating_point():
        steps = None if initial is None else radians_to_steps(initial.detach())
        differentiable = initial
    else:
        steps, differentiable = initial.to(torch.int64), None
    if length <= SHORT_LENGTH:
        return short_phase_scan(increments, groups, number_of_groups, steps, differentiable, scale_gradient)
    if groups is None:
        groups = torch.zeros(batch, length, dtype=torch.int64, device=increments.device)
    return _PhaseScan.apply(increments, groups, number_of_groups, steps, differentiable, scale_gradient)


class _PhaseScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        increments: Tensor,
        groups: Tensor,
        number_of_groups: int,
        initial_steps: Tensor | None,
        initial: Tensor | None,
        scale_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        segments = sort_by_group(groups)
        steps = radians_to_steps(segments.sort(increments))
        sums, final = running_sums(steps, segments, number_of_groups, initial_steps)
        packed = pack_steps(final)
        ctx.save_for_backward(*segments)
        ctx.scale_gradient = scale_gradient
        ctx.initial_groups = None if initial is None else number_of_groups
        ctx.mark_non_differentiable(packed)
        return segments.unsort(steps_to_radians(sums)), packed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        increment_gradient, initial_gradient = running_sums_gradient(
            gradients[0], Segments(*ctx.saved_tensors), ctx.initial_groups, ctx.scale_gradient
        )
        return increment_gradient, None, None, None, initial_gradient, None
