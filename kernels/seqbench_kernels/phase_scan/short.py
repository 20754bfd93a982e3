"""The grouped phase scan of short sequences: masked sums over all pairs of tokens, without sorting.

The sums are formed of whole numbers in fp64, exact below 2^53 steps (2^21 turns), so that they equal those of `scan.py`
whatever their order.
"""

from typing import Any

import torch
from torch import Tensor

from seqbench_kernels.phase_scan.turns import radians_to_whole_steps, whole_steps_to_radians

# Up to this many tokens all pairs are cheaper than the sort (measured on 2 CPU cores, 64 channels).
SHORT_LENGTH = 64


def short_phase_scan(
    increments: Tensor,
    groups: Tensor | None,
    number_of_groups: int,
    initial_steps: Tensor | None,
    initial: Tensor | None,
    scale_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """`phase_scan` of at most about SHORT_LENGTH tokens; quadratic in the length.

    `initial_steps` is S_0 in whole steps (int64), or None for zero; `initial` is the tensor that receives its gradient,
    or None. The other arguments and the result as `phase_scan`.
    """
    return _ShortPhaseScan.apply(increments, groups, number_of_groups, initial_steps, initial, scale_gradient)


class _ShortPhaseScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        increments: Tensor,
        groups: Tensor | None,
        number_of_groups: int,
        initial_steps: Tensor | None,
        initial: Tensor | None,
        scale_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        batch, length, channels = increments.shape
        if groups is None:
            groups = torch.zeros(1, length, dtype=torch.int64, device=increments.device)
        same = groups.unsqueeze(2) == groups.unsqueeze(1)
        upto = same.tril()
        steps = radians_to_whole_steps(increments)
        running = torch.bmm(upto.to(steps.dtype).expand(batch, -1, -1), steps)
        # The row after the last group collects padding.
        table = increments.new_zeros(batch, number_of_groups + 1, channels, dtype=torch.int32)
        groups = groups.expand(batch, -1)
        if initial_steps is not None:
            table[:, :number_of_groups] = initial_steps
            running += table.gather(1, _rows(groups, channels))
        # Conversion from int64 to int32 and sums of int32 wrap, as phases do.
        table.scatter_add_(1, _rows(groups, channels), steps.to(torch.int64).to(torch.int32))
        final = table[:, :number_of_groups]
        ctx.save_for_backward(groups, same, upto)
        ctx.scale_gradient = scale_gradient
        ctx.initial_groups = None if initial is None else number_of_groups
        ctx.mark_non_differentiable(final)
        return whole_steps_to_radians(running), final

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        groups, same, upto = ctx.saved_tensors
        gradient = gradients[0]
        batch, _, channels = gradient.shape
        initial_gradient = None
        if ctx.initial_groups is not None:
            table = gradient.new_zeros(batch, ctx.initial_groups + 1, channels)
            initial_gradient = table.scatter_add_(1, _rows(groups, channels), gradient)[:, :-1]
        readers = upto.to(gradient.dtype).mT
        if ctx.scale_gradient:
            readers = readers * same.sum(dim=2, dtype=gradient.dtype).rsqrt_().unsqueeze(2)
        # Autocast would round the gradients to its dtype.
        with torch.autocast(gradient.device.type, enabled=False):
            increment_gradient = torch.bmm(readers.expand(batch, -1, -1), gradient)
        return increment_gradient, None, None, None, initial_gradient, None


def _rows(groups: Tensor, channels: int) -> Tensor:
    """Each token's row of a table (batch, groups, channels), as an index for gather and scatter."""
    return groups.unsqueeze(2).expand(-1, -1, channels)
