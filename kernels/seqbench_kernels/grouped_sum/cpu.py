"""The grouped sum for CPUs: sums in fp64, by rows where tokens have many channels and else by sorting."""

import torch
from torch import Tensor

from seqbench_kernels.grouped_gradients import given_groups
from seqbench_kernels.row_sums import WIDE, RowSums, block_length, blocks, group_lists
from seqbench_kernels.segments import running_sums, sort_by_group


def sums(
    increments: Tensor, groups: Tensor | None, number_of_groups: int, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`grouped_sum` without gradients: the sums and the final table."""
    by = _sum_rows if increments.shape[-1] >= WIDE else _sum_sorted
    return by(increments, groups, number_of_groups, initial)


def _sum_rows(
    increments: Tensor, groups: Tensor | None, number_of_groups: int, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    batch, length, channels = increments.shape
    table = increments.new_zeros(batch, number_of_groups, channels, dtype=torch.float64)
    if initial is not None:
        table.copy_(initial)
    result = torch.empty_like(increments, memory_format=torch.contiguous_format)
    scratch = increments.new_empty(min(length, block_length(channels)), channels, dtype=torch.float64)
    for row, own in enumerate(group_lists(groups, batch, length)):
        running = RowSums(table[row])
        for start, end in blocks(length, channels):
            block = scratch[: end - start]
            block.copy_(increments[row, start:end])
            running.add_(block, own[start:end])
            result[row, start:end] = block
    return result, table


def _sum_sorted(
    increments: Tensor, groups: Tensor | None, number_of_groups: int, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    batch = len(increments)
    segments = sort_by_group(given_groups(groups, increments))
    ordered = segments.sort(increments).to(torch.float64)
    running, table = running_sums(ordered, segments, batch, number_of_groups, initial)
    return segments.unsort(running.to(increments.dtype), batch), table.contiguous()
