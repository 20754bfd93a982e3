"""The definitions of the grouped phase scan: one token at a time, and in whole tensors for autograd."""

import math

import torch
from torch import Tensor

from seqbench_kernels.grouped_sum.reference import grouped_sum_plain
from seqbench_kernels.phase_scan.turns import RADIANS_PER_STEP, packed_table


def phase_scan_reference(
    increments: Tensor, groups: Tensor, number_of_groups: int, initial: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """R_t = wrap(S_0[g_t] + sum of the increments of tokens up to t in the group of t); see `phase_scan`.

    Differentiable by autograd, without the count scaling of gradients. `initial` is in radians. Returns the phases
    (batch, length, channels) and the final table (batch, groups, channels), both fp64 radians in [0, 2 pi).
    """
    batch, length, channels = increments.shape
    rows = torch.arange(batch, device=increments.device)
    table = increments.new_zeros(batch, number_of_groups, channels, dtype=torch.float64)
    if initial is not None:
        table = table + initial.double()
    phases = []
    for step in range(length):
        group = groups[:, step]
        real = (group < number_of_groups).unsqueeze(1)
        index = group.clamp(max=number_of_groups - 1)
        updated = table[rows, index] + increments[:, step].double()
        phases.append(torch.where(real, updated, 0.0))
        table = torch.index_put(table, (rows, index), torch.where(real, updated, table[rows, index]))
    return torch.stack(phases, dim=1) % (2 * math.pi), table % (2 * math.pi)


def phase_scan_plain(
    increments: Tensor,
    groups: Tensor | None,
    number_of_groups: int,
    initial: Tensor | None = None,
    scale_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """`phase_scan` in plain operations on whole tensors, sums in fp64; arguments as there, phases in fp64.

    What the path "reference" runs: sorting and one cumulative sum, as the published implementation does it in fp32.
    """
    start = initial
    if initial is not None and not initial.is_floating_point():
        start = initial.to(torch.float64) * RADIANS_PER_STEP
    sums, table = grouped_sum_plain(increments, groups, number_of_groups, start, scale_gradient)
    return sums % (2 * math.pi), packed_table(table)
