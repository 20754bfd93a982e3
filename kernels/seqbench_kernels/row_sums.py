"""Running sums over groups where tokens have many channels, on a CPU: one vector addition a token, in blocks.

A sum along the tokens strides over memory there. Here each token's channels, one contiguous row, are added to the row
of the token before it in its group. Nothing is sorted, and what is larger than a block, which stays in the cache, is
the argument and the result only.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

# Numbers in a block: 512 KiB in fp64, half of a core's second-level cache.
_BLOCK_SIZE = 2**16

# From this many channels on, an addition a token is cheaper than sorting and summing (measured on one core of 2).
WIDE = 256


class RowSums:
    """Running sums of rows by group, which start from the rows of a table and end in it."""

    def __init__(self, table: Tensor) -> None:
        """`table` is (groups, channels); the group after the last is padding."""
        self._table = table.unbind(0)

    def add_(self, rows: Tensor, groups: list[int], backwards: bool = False) -> None:
        """Add to each of `rows`, (tokens, channels), all earlier ones of its group, in place; padding becomes zero."""
        step = -1 if backwards else 1
        latest: dict[int, Tensor] = {}
        for row, group in zip(rows.unbind(0)[::step], groups[::step], strict=True):
            if group >= len(self._table):
                row.zero_()
                continue
            row.add_(latest.get(group, self._table[group]))
            latest[group] = row
        for group, row in latest.items():
            self._table[group].copy_(row)


def block_length(channels: int) -> int:
    """Tokens in a block."""
    return max(1, _BLOCK_SIZE // channels)


def blocks(length: int, channels: int) -> Iterator[tuple[int, int]]:
    """Start and end of each block of tokens."""
    size = block_length(channels)
    return ((start, min(start + size, length)) for start in range(0, length, size))


def group_lists(groups: Tensor | None, batch: int, length: int) -> list[list[int]]:
    """Each row's groups; None is group 0 everywhere."""
    return [[0] * length] * batch if groups is None else groups.tolist()


def row_sums_gradient(
    gradient: Tensor, groups: Tensor | None, number_of_groups: int, scale_by_count: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of the values and of the initial table from that of running sums; as `running_sums_gradient`.

    Sums over the later tokens of a group are formed in fp64, each group's apart from the others'.
    """
    batch, length, channels = gradient.shape
    result = torch.empty_like(gradient, memory_format=torch.contiguous_format)
    table = gradient.new_zeros(batch, number_of_groups, channels, dtype=torch.float64)
    scratch = gradient.new_empty(min(length, block_length(channels)), channels, dtype=torch.float64)
    for row, own in enumerate(group_lists(groups, batch, length)):
        sums = RowSums(table[row])
        factors = _count_factors(own) if scale_by_count else None
        for start, end in reversed(list(blocks(length, channels))):
            block = scratch[: end - start]
            block.copy_(gradient[row, start:end])
            sums.add_(block, own[start:end], backwards=True)
            if factors is not None:
                block.mul_(factors[start:end])
            result[row, start:end] = block
    return result, table


def _count_factors(groups: list[int]) -> Tensor:
    """1 / sqrt(number of tokens in the group) of each token, (length, 1) fp64."""
    own = torch.tensor(groups)
    return own.bincount().double().rsqrt_()[own].unsqueeze(1)
