"""FLOPs of the chunked scan's matrix products, 2 per multiply-accumulate: for torch's counter, and for plugins."""

from collections.abc import Iterator

# Tokens of a chunk. Measured, forward and backward, at 1 x 512 tokens, 24 heads of 64, state 128 and at 4 x 512 tokens,
# 4 heads of 32, state 64: 32 and 128 take longer.
CHUNK = 64


def chunk_bounds(length: int) -> list[tuple[int, int]]:
    """First and one past the last token of each chunk."""
    return [(start, min(start + CHUNK, length)) for start in range(0, length, CHUNK)]


def forward_flops(
    length: int, heads: int, head_dim: int, groups: int, state: int, has_initial_state: bool = False
) -> int:
    """Of the forward pass of one row."""
    if length == 1:
        # One token: the readout of the new state.
        return 2 * heads * head_dim * state
    total = 0
    for size, first in _sizes(length):
        by_token = 2 * size * heads * head_dim * state
        # Scores and their values; the state after the chunk; what the state before it adds.
        total += 2 * size * size * (groups * state + heads * head_dim) + by_token
        total += by_token if has_initial_state or not first else 0
    return total


def backward_flops(
    length: int,
    heads: int,
    head_dim: int,
    groups: int,
    state: int,
    has_initial_state: bool = False,
    has_state_gradient: bool = False,
) -> int:
    """Of the backward pass of one row, which computes the scores again."""
    total, sizes = 0, list(_sizes(length))
    for index, (size, first) in enumerate(sizes):
        by_token = 2 * size * heads * head_dim * state
        total += 2 * size * size * (3 * groups * state + 2 * heads * head_dim)
        total += 2 * by_token if has_initial_state or not first else 0
        total += 2 * by_token if has_state_gradient or index < len(sizes) - 1 else 0
    return total


def _sizes(length: int) -> Iterator[tuple[int, bool]]:
    for start, stop in chunk_bounds(length):
        yield stop - start, start == 0
