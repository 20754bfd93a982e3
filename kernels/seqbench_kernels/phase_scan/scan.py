"""Grouped phase scan, by sorting where sequences are long: linear in tokens, exact sums in fixed point.

PMNet, arXiv 2605.13370: the recurrence of the write. The sum of fp32 increments is formed in whole steps of 2^-32
turns, so that it depends neither on the order of the tokens nor on how a sequence is cut into calls.
"""

from typing import Any

import torch
from torch import Tensor

from seqbench_kernels.phase_scan.short import SHORT_LENGTH, short_phase_scan
from seqbench_kernels.phase_scan.turns import pack_steps, radians_to_steps, steps_to_radians


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


class _Segments:
    """Tokens of each row sorted by group, and where each group's run begins and ends."""

    def __init__(self, groups: Tensor) -> None:
        batch, length = groups.shape
        ordered, order = groups.sort(dim=1, stable=True)
        row_start = torch.arange(batch, device=groups.device).unsqueeze(1) * length
        self.groups = ordered
        self.index = (order + row_start).flatten()
        changes = ordered[:, 1:] != ordered[:, :-1]
        edge = torch.ones(batch, 1, dtype=torch.bool, device=groups.device)
        places = torch.arange(length, device=groups.device).expand(batch, length)
        self.inverse = (torch.empty_like(order).scatter_(1, order, places) + row_start).flatten()
        first = torch.cat((edge, changes), dim=1)
        self.last = torch.cat((changes, edge), dim=1)
        self.first_index = torch.where(first, places, 0).cummax(dim=1).values + row_start
        ends = torch.where(self.last, places, length).flip(1).cummin(dim=1).values.flip(1)
        self.last_index = ends + row_start
        self.counts = ends - (self.first_index - row_start) + 1


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
        batch, length, channels = increments.shape
        segments = _Segments(groups)
        steps = radians_to_steps(increments.reshape(-1, channels).index_select(0, segments.index))
        running = steps.view(batch, length, channels).cumsum(dim=1).view(-1, channels)
        first = segments.first_index.flatten()
        base = running.index_select(0, first).sub_(steps.index_select(0, first))
        running.sub_(base)
        rows = torch.arange(batch, device=groups.device).unsqueeze(1).expand(batch, length)
        final = increments.new_zeros(batch, number_of_groups + 1, channels, dtype=torch.int64)
        if initial_steps is not None:
            final[:, :number_of_groups] = initial_steps
            running.add_(final[rows, segments.groups].view(-1, channels))
        ends = segments.last
        final[rows[ends], segments.groups[ends]] = running.view(batch, length, channels)[ends]
        phases = steps_to_radians(running.index_select(0, segments.inverse)).view(batch, length, channels)
        ctx.segments, ctx.scale_gradient, ctx.shape = segments, scale_gradient, (batch, length, channels)
        ctx.initial_shape = None if initial is None else initial.shape
        packed = pack_steps(final[:, :number_of_groups])
        ctx.mark_non_differentiable(packed)
        return phases, packed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        batch, length, channels = ctx.shape
        segments: _Segments = ctx.segments
        ordered = gradients[0].reshape(-1, channels).index_select(0, segments.index)
        # fp64: a segment's sum is a difference of two prefix sums over the whole row.
        prefix = ordered.view(batch, length, channels).cumsum(dim=1, dtype=torch.float64).view(-1, channels)
        remaining = prefix.index_select(0, segments.last_index.flatten()).sub_(prefix).add_(ordered)
        initial_gradient = None
        if ctx.initial_shape is not None:
            initial_gradient = _sum_per_group(ctx, segments, remaining, gradients[0].dtype)
        if ctx.scale_gradient:
            remaining.mul_(segments.counts.flatten().to(torch.float64).rsqrt_().unsqueeze(1))
        increment_gradient = remaining.to(gradients[0].dtype).index_select(0, segments.inverse)
        return increment_gradient.view(batch, length, channels), None, None, None, initial_gradient, None


def _sum_per_group(ctx: Any, segments: _Segments, remaining: Tensor, dtype: torch.dtype) -> Tensor:
    """Gradient of S_0: each group's first token carries the sum over all its tokens."""
    batch, length, channels = ctx.shape
    table = remaining.new_zeros(batch, ctx.initial_shape[1] + 1, channels)
    rows = torch.arange(batch, device=remaining.device).unsqueeze(1).expand(batch, length)
    # Every token of a segment writes the same value, that of the segment's first token.
    table[rows, segments.groups] = remaining.index_select(0, segments.first_index.flatten()).view(ctx.shape)
    return table[:, :-1].to(dtype)
