"""The definitions of the grouped sum: one token at a time, and in whole tensors for autograd."""

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


def grouped_sum_plain(
    increments: Tensor,
    groups: Tensor | None,
    number_of_groups: int,
    initial: Tensor | None = None,
    scale_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """`grouped_sum` in plain operations on whole tensors; arguments as there, sums in fp64.

    Sorts the tokens of each row by group, takes cumulative sums and subtracts what came before each group's first.
    """
    batch, length, channels = increments.shape
    if groups is None:
        groups = torch.zeros(batch, length, dtype=torch.int64, device=increments.device)
    ordered, order = groups.sort(dim=1, stable=True)
    index = order.unsqueeze(2).expand(-1, -1, channels)
    real = (ordered < number_of_groups).unsqueeze(2)
    values = torch.where(real, increments.double().gather(1, index), 0.0)
    first = torch.searchsorted(ordered, ordered)
    last = torch.searchsorted(ordered, ordered, right=True) - 1
    if scale_gradient:
        factors = (last - first + 1).double().rsqrt().unsqueeze(2)
        # The value unchanged to the bit, its gradient multiplied.
        values = values.detach() + (values - values.detach()) * factors
    before = torch.cat((values.new_zeros(batch, 1, channels), values.cumsum(dim=1)), dim=1)
    sums = before[:, 1:] - before.gather(1, first.unsqueeze(2).expand_as(index))
    table = values.new_zeros(batch, number_of_groups + 1, channels)
    if initial is not None:
        table = torch.cat((initial.double(), table[:, -1:]), dim=1)
        sums = sums + table.gather(1, ordered.unsqueeze(2).expand_as(index))
    # Every token of a group writes the same value, that of the group's last one.
    ends = sums.detach().gather(1, last.unsqueeze(2).expand_as(index))
    final = table.detach().scatter(1, ordered.unsqueeze(2).expand_as(index), ends)[:, :-1]
    return torch.zeros_like(sums).scatter(1, index, sums), final
