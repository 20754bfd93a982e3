"""The grouped phase scan for CPUs: sums of int32 steps, by rows where tokens have many channels and else by sorting."""

import torch
from torch import Tensor

from seqbench_kernels.grouped_gradients import given_groups
from seqbench_kernels.phase_scan.turns import packed_table, write_packed_steps, write_radians
from seqbench_kernels.row_sums import WIDE, RowSums, block_length, blocks, group_lists
from seqbench_kernels.segments import running_sums, sort_by_group


def scan(
    increments: Tensor, groups: Tensor | None, number_of_groups: int, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`phase_scan` without gradients: the phases and the final table."""
    start = None if initial is None else packed_table(initial)
    by = _scan_rows if increments.shape[-1] >= WIDE else _scan_sorted
    return by(increments, groups, number_of_groups, start)


def _scan_rows(
    increments: Tensor, groups: Tensor | None, number_of_groups: int, start: Tensor | None
) -> tuple[Tensor, Tensor]:
    batch, length, channels = increments.shape
    table = increments.new_zeros(batch, number_of_groups, channels, dtype=torch.int32) if start is None else start
    phases = increments.new_empty(increments.shape, dtype=torch.float32)
    wide = increments.new_empty(min(length, block_length(channels)), channels, dtype=torch.float64)
    narrow = torch.empty_like(wide, dtype=torch.int32)
    for row, own in enumerate(group_lists(groups, batch, length)):
        sums = RowSums(table[row])
        for first, end in blocks(length, channels):
            scratch, steps = wide[: end - first], narrow[: end - first]
            write_packed_steps(increments[row, first:end], scratch, steps)
            sums.add_(steps, own[first:end])
            write_radians(steps, scratch, phases[row, first:end])
    return phases, table


def _scan_sorted(
    increments: Tensor, groups: Tensor | None, number_of_groups: int, start: Tensor | None
) -> tuple[Tensor, Tensor]:
    segments = sort_by_group(given_groups(groups, increments))
    ordered = segments.sort(increments)
    wide = torch.empty_like(ordered, dtype=torch.float64)
    steps = torch.empty_like(ordered, dtype=torch.int32)
    write_packed_steps(ordered, wide, steps)
    sums, table = running_sums(steps, segments, len(increments), number_of_groups, start)
    radians = ordered.to(torch.float32)
    write_radians(sums, wide, radians)
    return segments.unsort(radians, len(increments)), table.contiguous()
