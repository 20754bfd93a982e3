"""The definition of the grouped sum, one token at a time in fp64."""

import torch
from torch import Tensor


def grouped_sum_reference(
    increments: Tensor, groups: Tensor, number_of_groups: int, initial: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """z_t = z_0[g_t] + sum of the increments of tokens up to t in the group of t; see `grouped_sum`.

    Differentiable by autograd, without the count scaling of gradients. Returns the sums (batch, length, channels) and
    the final table (batch, groups, channels), both fp64; a padding token has the sum zero.
    """
    batch, length, channels = increments.shape
    rows = torch.arange(batch, device=increments.device)
    table = increments.new_zeros(batch, number_of_groups, channels, dtype=torch.float64)
    if initial is not None:
        table = table + initial.double()
    sums = []
    for step in range(length):
        real = (groups[:, step] < number_of_groups).unsqueeze(1)
        index = groups[:, step].clamp(max=number_of_groups - 1)
        updated = table[rows, index] + increments[:, step].double()
        sums.append(torch.where(real, updated, 0.0))
        table = torch.index_put(table, (rows, index), torch.where(real, updated, table[rows, index]))
    return torch.stack(sums, dim=1), table
