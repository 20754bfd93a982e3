"""The grouped phase scan with Triton kernels.

Tokens are sorted by group (torch.sort). Forward: each chunk of tokens is summed (`chunk_steps`), the sums of chunks are
added up, and each token's sum is that of its row less what the row had before the token's group, plus the group's start
(`group_phases`). Whole steps lose nothing in that difference. Increments are read twice; nothing else as large as the
sequence is read or written but the phases. Backward: the same the other way round (`chunk_gradients`,
`group_gradients`), in fp64, whose difference costs 1e-16 of the row's sum.

Tested through Triton's interpreter, and compiled ahead of time for compute capabilities 8.0 and 9.0; a test that needs
a CUDA device compares compiled results, and has not been run so far. Sums in fp64 are slow on GPUs that are not made
for them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from seqbench_kernels.phase_scan.turns import packed_table
from seqbench_kernels.triton_support import on_device_of

# 8 numbers a thread of four warps, in rows of 128 bytes of fp32.
_CHUNK = 32
_COLUMNS = 32
# A fused product is not rounded, and would differ from what the CPU path gives by a step.
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}
# Of a step: one row of channels.
_STEP_COLUMNS = 512


class _Sorted(NamedTuple):
    """Tokens in the order of their groups.

    Attributes:
        order: (B, T), the place of each before sorting, counted over all rows.
        groups: (B, T).
        first: (B, number_of_groups), the sorted position of each group's first token; of the next group's without one.
        end: (B, number_of_groups), one after its last token.
    """

    order: Tensor
    groups: Tensor
    first: Tensor
    end: Tensor

    @classmethod
    def of(cls, groups: Tensor | None, values: Tensor, number_of_groups: int) -> "_Sorted":
        batch, length, _ = values.shape
        every = torch.arange(number_of_groups, device=values.device).repeat(batch, 1)
        places = torch.arange(batch * length, device=values.device).view(batch, length)
        if groups is None:
            zeros = torch.zeros_like(places)
            return cls(places, zeros, (every > 0) * length, torch.full_like(every, length))
        ordered, order = groups.sort(dim=1, stable=True)
        first, end = (torch.searchsorted(ordered, every, right=right) for right in (False, True))
        return cls(order + places[:, :1], ordered, first, end)

    def factors(self) -> Tensor:
        """1 / sqrt(number of tokens in the group) of each token, fp64; of padding it means nothing."""
        counts = (self.end - self.first).clamp_(min=1).double().rsqrt_()
        return counts.gather(1, self.groups.clamp(max=counts.shape[1] - 1))


def scan(
    increments: Tensor, groups: Tensor | None, number_of_groups: int, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`phase_scan` without gradients: the phases and the final table."""
    from seqbench_kernels.phase_scan import triton_kernels

    increments = increments.contiguous()
    batch, length, channels = increments.shape
    tokens = _Sorted.of(groups, increments, number_of_groups)
    before = increments.new_zeros(batch, number_of_groups, channels, dtype=torch.int32)
    start = torch.zeros_like(before) if initial is None else packed_table(initial)
    phases = torch.empty_like(increments, dtype=torch.float32)
    with on_device_of(increments):
        grid, chunks, sizes = _launch(batch, length, channels, number_of_groups)
        totals = increments.new_empty(batch, chunks, channels, dtype=torch.int32)
        triton_kernels.chunk_steps[grid](
            increments, tokens.order, tokens.groups, before, totals,
            *sizes, CHUNK=_CHUNK, COLUMNS=_COLUMNS, **_OPTIONS,
        )  # fmt: skip
        earlier = totals.cumsum(dim=1, dtype=torch.int32).sub_(totals)
        before += _at_chunks(earlier, tokens.first)
        table = start.clone()
        triton_kernels.group_phases[grid](
            increments, tokens.order, tokens.groups, earlier, start.sub_(before), phases, table,
            *sizes, CHUNK=_CHUNK, COLUMNS=_COLUMNS, **_OPTIONS,
        )  # fmt: skip
    return phases, table


def scan_gradient(
    gradient: Tensor, groups: Tensor | None, number_of_groups: int, scale_gradient: bool, with_initial: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of the increments, in the dtype of `gradient`, and of the initial table in radians, fp64.

    Without `with_initial` the second is an empty tensor.
    """
    from seqbench_kernels.phase_scan import triton_kernels

    gradient = gradient.contiguous()
    batch, length, channels = gradient.shape
    tokens = _Sorted.of(groups, gradient, number_of_groups)
    ends = gradient.new_zeros(batch, number_of_groups, channels, dtype=torch.float64)
    table = torch.zeros_like(ends)
    result = torch.empty_like(gradient)
    # Where nothing is scaled, any tensor stands for the factors.
    factors = tokens.factors() if scale_gradient else ends
    with on_device_of(gradient):
        grid, chunks, sizes = _launch(batch, length, channels, number_of_groups)
        totals = gradient.new_empty(batch, chunks, channels, dtype=torch.float64)
        triton_kernels.chunk_gradients[grid](
            gradient, tokens.order, tokens.groups, ends, totals,
            *sizes, CHUNK=_CHUNK, COLUMNS=_COLUMNS, **_OPTIONS,
        )  # fmt: skip
        # Not what a cumulative sum has less its own term: that would round.
        earlier = totals.cumsum(dim=1).roll(1, dims=1)
        earlier[:, 0] = 0
        ends += _at_chunks(earlier, tokens.end - 1)
        triton_kernels.group_gradients[grid](
            gradient, tokens.order, tokens.groups, factors, earlier, ends, result, table,
            *sizes, SCALED=scale_gradient, CHUNK=_CHUNK, COLUMNS=_COLUMNS, **_OPTIONS,
        )  # fmt: skip
    return result, table if with_initial else table.new_empty(0)


def step_(table: Tensor, increments: Tensor, groups: Tensor, phases: Tensor) -> None:
    """`phase_step_`, into `phases`; all contiguous."""
    from seqbench_kernels.phase_scan import triton_kernels

    batch, number_of_groups, channels = table.shape
    with on_device_of(table):
        triton_kernels.step[(batch, -(-channels // _STEP_COLUMNS))](
            table, increments, groups, phases, channels, number_of_groups, COLUMNS=_STEP_COLUMNS, **_OPTIONS
        )


def _launch(
    batch: int, length: int, channels: int, number_of_groups: int
) -> tuple[tuple[int, int], int, tuple[int, int, int, int]]:
    """The grid, the number of chunks in a row, and the sizes that every kernel takes."""
    chunks = -(-length // _CHUNK)
    grid = (batch * chunks, -(-channels // _COLUMNS))
    return grid, chunks, (length, chunks, channels, number_of_groups)


def _at_chunks(of_chunks: Tensor, positions: Tensor) -> Tensor:
    """The entries (B, groups, channels) of the chunks that hold positions (B, groups); some entry out of range."""
    chunk = (positions // _CHUNK).clamp(0, of_chunks.shape[1] - 1)
    return of_chunks.gather(1, chunk.unsqueeze(2).expand(-1, -1, of_chunks.shape[2]))
