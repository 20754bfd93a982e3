"""The grouped phase scan of short sequences: one masked sum over all pairs of tokens, without sorting.

Integers below 2^53 are exact in fp64, so that the sums equal those of `scan.py` in whatever order they are formed.
"""

from typing import Any

import torch
from torch import Tensor

from seqbench_kernels.phase_scan.turns import radians_to_whole_steps, whole_steps_to_radians

# Up to this many tokens the pairs are cheaper than the sort (measured on 2 CPU cores, 64 channels).
SHORT_LENGTH = 64


class ShortPhaseScan(torch.autograd.Function):
    """As `phase_scan` with initial steps (int64) or None; `groups` None puts every token into group 0."""

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
        steps = radians_to_whole_steps(increments)
        earlier = None if groups is None else _same_group_before(groups)
        running = steps.cumsum(dim=1) if earlier is None else torch.bmm(earlier.double(), steps)
        # One more row collects the padding.
        table = steps.new_zeros(batch, number_of_groups + 1, channels, dtype=torch.int32)
        if initial_steps is not None:
            table[:, :number_of_groups] = initial_steps
            running += initial_steps[:, :1] if groups is None else _own_rows(table, groups)
        if groups is None:
            table[:, 0] = running[:, -1].to(torch.int64).to(torch.int32)
        else:
            rows = torch.arange(batch, device=groups.device).unsqueeze(1) * (number_of_groups + 1)
            packed = steps.to(torch.int64).to(torch.int32)
            table.flatten(0, 1).index_add_(0, (groups + rows).flatten(), packed.flatten(0, 1))
        ctx.save_for_backward(groups, earlier)
        ctx.scale_gradient = scale_gradient
        ctx.initial_shape = None if initial is None else initial.shape
        final = table[:, :number_of_groups]
        ctx.mark_non_differentiable(final)
        return whole_steps_to_radians(running), final
