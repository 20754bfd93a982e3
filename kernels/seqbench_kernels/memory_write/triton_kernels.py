"""The kernels of `triton_path`.

One token a program, or several where keys are shared. Shapes in capitals are known when a kernel is compiled: SLOTS N
and PADDED, N up to the next power of two, ANGLES M, and COLUMNS, how many angles a program takes at a time.
phi(x) = pi tanh(x) is pi (2 sigmoid(2x) - 1), to an absolute error of 5e-7.
"""

# Kernels take pointers and numbers that Triton knows the types of.
# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="annotation-unchecked"

import math

import triton
import triton.language as tl

_PI = tl.constexpr(math.pi)
_TWO_PI = tl.constexpr(2 * math.pi)
_FOUR_PI = tl.constexpr(4 * math.pi)


@triton.jit
def slot_weights(
    query, keys, weights, key_stride, scale,
    SLOTS: tl.constexpr, PADDED: tl.constexpr, ANGLES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A softmax over the slots of scale times the sum of cosines; key_stride 0 where all tokens share keys."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.arange(0, PADDED)
    scores = tl.zeros([PADDED], tl.float32)
    for first in range(0, ANGLES, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        inside = (slot < SLOTS)[:, None] & (column < ANGLES)[None, :]
        own = tl.sigmoid(2.0 * tl.load(query + token * ANGLES + column, mask=column < ANGLES, other=0.0).to(tl.float32))
        places = token * key_stride + slot[:, None] * ANGLES + column[None, :]
        bounded = tl.sigmoid(2.0 * tl.load(keys + places, mask=inside, other=0.0).to(tl.float32))
        scores += tl.sum(tl.where(inside, tl.cos((own[None, :] - bounded) * _TWO_PI), 0.0), axis=1)
    scores = tl.where(slot < SLOTS, scores * scale, float("-inf"))
    exponentials = tl.exp(scores - tl.max(scores, axis=0))
    tl.store(weights + token * SLOTS + slot, exponentials / tl.sum(exponentials, axis=0), mask=slot < SLOTS)


@triton.jit
def slot_weights_gradient(
    gradient, query, keys, weights, query_gradient, key_gradient, tokens, key_stride, scale,
    SHARED: tl.constexpr, TOKENS: tl.constexpr,
    SLOTS: tl.constexpr, PADDED: tl.constexpr, ANGLES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradients of query and keys; where keys are SHARED, each program's sum over its TOKENS."""
    slot = tl.arange(0, PADDED)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([PADDED, COLUMNS], tl.float32)
    for offset in range(TOKENS):
        token = tl.program_id(0).to(tl.int64) * TOKENS + offset
        # Nothing of a token past the end.
        own_slots, own_angles = tl.where(token < tokens, SLOTS, 0), tl.where(token < tokens, ANGLES, 0)
        read, present = column < own_angles, (slot < own_slots)[:, None] & (column < own_angles)[None, :]
        own_weights = tl.load(weights + token * SLOTS + slot, mask=slot < own_slots, other=0.0)
        by_weight = tl.load(gradient + token * SLOTS + slot, mask=slot < own_slots, other=0.0)
        by_score = own_weights * (by_weight - tl.sum(own_weights * by_weight, axis=0)) * scale * _FOUR_PI
        own = tl.sigmoid(2.0 * tl.load(query + token * ANGLES + column, mask=read, other=0.0).to(tl.float32))
        places = token * key_stride + slot[:, None] * ANGLES + column[None, :]
        bounded = tl.sigmoid(2.0 * tl.load(keys + places, mask=present, other=0.0).to(tl.float32))
        # d cos(2 pi (a - b)) / db = 2 pi sin(2 pi (a - b)), the opposite for a; d sigmoid(2x) / dx = 2 s (1 - s).
        by_bounded = by_score[:, None] * tl.sin((own[None, :] - bounded) * _TWO_PI)
        by_query = -tl.sum(by_bounded, axis=0) * own * (1.0 - own)
        tl.store(query_gradient + token * ANGLES + column, by_query.to(query_gradient.dtype.element_ty), mask=read)
        by_key = by_bounded * bounded * (1.0 - bounded)
        if SHARED:
            total += by_key
        else:
            tl.store(key_gradient + places, by_key.to(key_gradient.dtype.element_ty), mask=present)
    if SHARED:
        places = tl.program_id(0).to(tl.int64) * SLOTS * ANGLES + slot[:, None] * ANGLES + column[None, :]
        tl.store(key_gradient + places, total, mask=(slot < SLOTS)[:, None] & (column < ANGLES)[None, :])


@triton.jit
def slot_increments(
    weights, values, increments,
    SLOTS: tl.constexpr, PADDED: tl.constexpr, ANGLES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Weights times phi(values)."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.arange(0, PADDED)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    own = tl.load(weights + token * SLOTS + slot, mask=slot < SLOTS, other=0.0)
    value = tl.load(values + token * ANGLES + column, mask=column < ANGLES, other=0.0).to(tl.float32)
    angle = tl.sigmoid(2.0 * value) * _TWO_PI - _PI
    places = (token * SLOTS + slot[:, None]) * ANGLES + column[None, :]
    tl.store(
        increments + places,
        own[:, None] * angle[None, :],
        mask=(slot < SLOTS)[:, None] & (column < ANGLES)[None, :],
    )


@triton.jit
def slot_increments_gradient(
    gradient, weights, values, weights_gradient, values_gradient,
    SLOTS: tl.constexpr, PADDED: tl.constexpr, ANGLES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradients of weights and values."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.arange(0, PADDED)
    own = tl.load(weights + token * SLOTS + slot, mask=slot < SLOTS, other=0.0)
    by_weight = tl.zeros([PADDED], tl.float32)
    for first in range(0, ANGLES, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        value = tl.load(values + token * ANGLES + column, mask=column < ANGLES, other=0.0).to(tl.float32)
        bounded = tl.sigmoid(2.0 * value)
        places = (token * SLOTS + slot[:, None]) * ANGLES + column[None, :]
        inside = (slot < SLOTS)[:, None] & (column < ANGLES)[None, :]
        by_increment = tl.load(gradient + places, mask=inside, other=0.0)
        by_weight += tl.sum(by_increment * (bounded * _TWO_PI - _PI)[None, :], axis=1)
        by_value = tl.sum(by_increment * own[:, None], axis=0) * _FOUR_PI * bounded * (1.0 - bounded)
        tl.store(
            values_gradient + token * ANGLES + column,
            by_value.to(values_gradient.dtype.element_ty),
            mask=column < ANGLES,
        )
    tl.store(weights_gradient + token * SLOTS + slot, by_weight, mask=slot < SLOTS)
