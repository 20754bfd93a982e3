"""The kernels of `triton_path`, which says what each is for and how they follow each other.

Rows of `length` tokens are taken in the order of their groups, CHUNK tokens of COLUMNS channels a program. `order`
gives the place of each sorted token before sorting, counted over all rows; `groups` its group, `number_of_groups` being
padding. Tables are (rows, groups, channels), and what belongs to chunks is (rows, chunks, channels).
"""

# Kernels take pointers and numbers that Triton knows the types of.
# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="annotation-unchecked"

import math

import triton
import triton.language as tl

_STEPS_PER_RADIAN = tl.constexpr(2.0**32 / (2 * math.pi))
_RADIANS_PER_STEP = tl.constexpr(2 * math.pi / 2.0**32)
# Leaves the nearest whole number of an fp64 number that it is added to in the low bits of the sum (turns.py).
_TO_LOW_BITS = tl.constexpr(1.5 * 2**52)


@triton.jit
def _to_steps(radians):
    """Packed steps of an angle, as int64 between -2^31 and 2^31."""
    shifted = radians.to(tl.float64) * _STEPS_PER_RADIAN + _TO_LOW_BITS
    return shifted.to(tl.int64, bitcast=True).to(tl.int32).to(tl.int64)


@triton.jit
def _to_radians(steps):
    """fp32 radians in [0, 2 pi] of int64 steps."""
    return ((steps & 0xFFFFFFFF).to(tl.float64) * _RADIANS_PER_STEP).to(tl.float32)


@triton.jit
def _tokens_of_chunk(order, groups, length, chunks, CHUNK: tl.constexpr):
    """The row, and of each token of the chunk: its position, whether it exists, its place, its group."""
    row = (tl.program_id(0) // chunks).to(tl.int64)
    position = (tl.program_id(0) % chunks) * CHUNK + tl.arange(0, CHUNK)
    exists = position < length
    place = tl.load(order + row * length + position, mask=exists, other=0)
    group = tl.load(groups + row * length + position, mask=exists, other=-1)
    return row, position, exists, place, group


@triton.jit
def _is_first(groups, row, position, exists, group, length):
    before = tl.load(groups + row * length + position - 1, mask=exists & (position > 0), other=-1)
    return exists & (before != group)


@triton.jit
def _is_last(groups, row, position, exists, group, length):
    after = tl.load(groups + row * length + position + 1, mask=position + 1 < length, other=-1)
    return exists & (after != group)


@triton.jit
def chunk_steps(
    increments, order, groups, before, totals,
    length, chunks, channels, number_of_groups, CHUNK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Steps in each chunk, to `totals`, and in the chunk before each group's first token, to the table `before`."""
    row, position, exists, place, group = _tokens_of_chunk(order, groups, length, chunks, CHUNK)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    read = exists[:, None] & inside[None, :]
    steps = _to_steps(tl.load(increments + place[:, None] * channels + column[None, :], mask=read, other=0.0))
    earlier = tl.cumsum(steps, axis=0) - steps
    starts = _is_first(groups, row, position, exists, group, length) & (group < number_of_groups)
    entry = (row * number_of_groups + group) * channels
    tl.store(before + entry[:, None] + column[None, :], earlier.to(tl.int32), mask=starts[:, None] & inside[None, :])
    total = tl.sum(steps, axis=0).to(tl.int32)
    tl.store(totals + tl.program_id(0).to(tl.int64) * channels + column, total, mask=inside)


@triton.jit
def group_phases(
    increments, order, groups, earlier_chunks, start, phases, table,
    length, chunks, channels, number_of_groups, CHUNK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Phases of all tokens, and the last one of each group to `table`.

    `earlier_chunks` holds the steps in all earlier chunks of the row, `start` (a table) what each group's sum has in
    excess of the row's.
    """
    row, position, exists, place, group = _tokens_of_chunk(order, groups, length, chunks, CHUNK)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    read = exists[:, None] & inside[None, :]
    real = exists & (group < number_of_groups)
    steps = _to_steps(tl.load(increments + place[:, None] * channels + column[None, :], mask=read, other=0.0))
    entry = (row * number_of_groups + group) * channels
    kept = real[:, None] & inside[None, :]
    sums = tl.cumsum(steps, axis=0) + tl.load(start + entry[:, None] + column[None, :], mask=kept, other=0).to(tl.int64)
    chunk = tl.program_id(0).to(tl.int64) * channels
    sums += tl.load(earlier_chunks + chunk + column, mask=inside, other=0).to(tl.int64)[None, :]
    radians = tl.where(real[:, None], _to_radians(sums), 0.0)
    tl.store(phases + place[:, None] * channels + column[None, :], radians, mask=read)
    ends = _is_last(groups, row, position, exists, group, length) & real
    tl.store(table + entry[:, None] + column[None, :], sums.to(tl.int32), mask=ends[:, None] & inside[None, :])


@triton.jit
def chunk_gradients(
    gradient, order, groups, upto, totals,
    length, chunks, channels, number_of_groups, CHUNK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """fp64 sums of each chunk, to `totals`, and of the chunk up to each group's last token, to the table `upto`."""
    row, position, exists, place, group = _tokens_of_chunk(order, groups, length, chunks, CHUNK)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    real = exists & (group < number_of_groups)
    read = real[:, None] & inside[None, :]
    own = tl.load(gradient + place[:, None] * channels + column[None, :], mask=read, other=0.0).to(tl.float64)
    ends = _is_last(groups, row, position, exists, group, length) & real
    entry = (row * number_of_groups + group) * channels
    tl.store(upto + entry[:, None] + column[None, :], tl.cumsum(own, axis=0), mask=ends[:, None] & inside[None, :])
    tl.store(totals + tl.program_id(0).to(tl.int64) * channels + column, tl.sum(own, axis=0), mask=inside)


@triton.jit
def group_gradients(
    gradient, order, groups, factors, earlier_chunks, ends, result, table,
    length, chunks, channels, number_of_groups, SCALED: tl.constexpr, CHUNK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Sums of the gradients of each token and the later ones of its group, times its factor where SCALED.

    `ends` (a table) holds the row's sum up to each group's last token, `earlier_chunks` that of all earlier chunks.
    Sums from a group's first token on, without the factor, go to `table`.
    """
    row, position, exists, place, group = _tokens_of_chunk(order, groups, length, chunks, CHUNK)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    real = exists & (group < number_of_groups)
    read = real[:, None] & inside[None, :]
    own = tl.load(gradient + place[:, None] * channels + column[None, :], mask=read, other=0.0).to(tl.float64)
    chunk = tl.program_id(0).to(tl.int64) * channels
    earlier = tl.load(earlier_chunks + chunk + column, mask=inside, other=0.0)[None, :] + (tl.cumsum(own, axis=0) - own)
    entry = (row * number_of_groups + group) * channels
    remaining = tl.load(ends + entry[:, None] + column[None, :], mask=read, other=0.0) - earlier
    starts = _is_first(groups, row, position, exists, group, length) & real
    tl.store(table + entry[:, None] + column[None, :], remaining, mask=starts[:, None] & inside[None, :])
    if SCALED:
        remaining *= tl.load(factors + row * length + position, mask=exists, other=0.0)[:, None]
    remaining = tl.where(real[:, None], remaining, 0.0)
    tl.store(
        result + place[:, None] * channels + column[None, :],
        remaining.to(result.dtype.element_ty),
        mask=exists[:, None] & inside[None, :],
    )


@triton.jit
def step(table, increments, groups, phases, channels, number_of_groups, COLUMNS: tl.constexpr):
    """One token a row: adds to the row's group in `table`, and writes the sum's radians."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    group = tl.load(groups + row)
    # Nothing of padding.
    kept = column < tl.where(group < number_of_groups, channels, 0)
    entry = table + (row * number_of_groups + group) * channels + column
    added = _to_steps(tl.load(increments + row * channels + column, mask=inside, other=0.0))
    sums = tl.load(entry, mask=kept, other=0).to(tl.int64) + added
    tl.store(entry, sums.to(tl.int32), mask=kept)
    tl.store(phases + row * channels + column, tl.where(kept, _to_radians(sums), 0.0), mask=inside)
