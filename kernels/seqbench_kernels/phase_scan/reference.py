"""The definition of the grouped phase scan, one token at a time in fp64."""

import math

import torch
from torch import Tensor


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
        phases.append(updated)
        table = torch.index_put(table, (rows, index), torch.where(real, updated, table[rows, index]))
    return torch.stack(phases, dim=1) % (2 * math.pi), table % (2 * math.pi)
