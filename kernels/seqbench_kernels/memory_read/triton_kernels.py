"""The kernels of `triton_path`, which says what each is for and how they follow each other.

Angles are in half turns here: phi(x) = pi tanh(x) is held as tanh(x), so that cos(phi(q) - phi(k)) is cos(pi d) with
|d| <= 2. Shapes in capitals are known when a kernel is compiled: HEADS R, SIZE M, SLOTS N, and PADDED, N up to the next
power of two. A program of the key projection owns a block of TOKENS and COLUMNS of one head; what follows its product
is done for AT_ONCE columns after the other, since a whole block would not fit in the registers.
"""

# Kernels take what Triton makes of their arguments, which has no types to annotate.
# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="annotation-unchecked"

import triton
import triton.language as tl


@triton.jit
def _tanh(x):
    """1 - 2 / (1 + exp(2x)), to an absolute error of 2e-7 and from one exponential and one division."""
    TWICE_LOG2_E: tl.constexpr = 2.8853900817779268
    return 1.0 - 2.0 / (1.0 + tl.exp2(TWICE_LOG2_E * x))


@triton.jit
def _sine_of_half_turns(x):
    """sin(pi x) for |x| <= 1/2 to an absolute error of 2e-7, a polynomial and so not for larger x."""
    square = x * x
    # Minimax fit of sin(pi x) / x in x^2; its error is 3e-9 before rounding.
    series = 0.07722011
    series = series * square - 0.59804517
    series = series * square + 2.55003138
    series = series * square - 5.16770688
    series = series * square + 3.14159258
    return series * x


@triton.jit
def _cosine_of_difference(query, keys):
    """cos(pi (query - keys)) for values of tanh."""
    # cos(pi d) = sin(pi (||d| - 1| - 1/2)) for |d| <= 2.
    return _sine_of_half_turns(tl.abs(tl.abs(query - keys) - 1.0) - 0.5)


@triton.jit
def _sine_of_difference(query, keys):
    """sin(pi (query - keys)) for values of tanh."""
    # The last line's fold with d + 1/2 for d reaches to |d| = 3/2, a third fold from there to 2.
    return _sine_of_half_turns(tl.abs(tl.abs(tl.abs(query - keys + 0.5) - 1.0) - 1.0) - 0.5)


@triton.jit
def _bounded_keys(
    slots, weight, bias, tokens, first_token, head, first_column,
    SIZE: tl.constexpr, SLOTS: tl.constexpr, PADDED: tl.constexpr,
    TOKENS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """tanh(W_k slots + b_k) of one head's columns, (TOKENS, PADDED, COLUMNS) fp32; rows past the end repeat one."""
    FEATURES: tl.constexpr = 2 * SIZE
    row = tl.arange(0, TOKENS * PADDED)
    token = tl.minimum(first_token + row // PADDED, tokens - 1).to(tl.int64)
    slot = tl.minimum(row % PADDED, SLOTS - 1)
    column = head * SIZE + tl.minimum(first_column + tl.arange(0, COLUMNS), SIZE - 1)
    inner = tl.arange(0, INNER)
    slot_pointers = slots + (token * SLOTS + slot)[:, None] * FEATURES + inner[None, :]
    weight_pointers = weight + column[None, :] * FEATURES + inner[:, None]
    keys = tl.zeros((TOKENS * PADDED, COLUMNS), tl.float32)
    for start in range(0, FEATURES, INNER):
        if FEATURES % INNER == 0:
            left = tl.load(slot_pointers)
            right = tl.load(weight_pointers)
        else:
            left = tl.load(slot_pointers, mask=inner[None, :] < FEATURES - start, other=0.0)
            right = tl.load(weight_pointers, mask=inner[:, None] < FEATURES - start, other=0.0)
        if UPCAST:
            left = left.to(tl.float32)
            right = right.to(tl.float32)
        keys = tl.dot(left, right, keys, input_precision="ieee")
        slot_pointers += INNER
        weight_pointers += INNER
    keys += tl.load(bias + column).to(tl.float32)[None, :]
    return tl.reshape(_tanh(keys), (TOKENS, PADDED, COLUMNS))


@triton.jit
def _bounded_query(
    query, tokens, token, head, columns,
    HEADS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """tanh(query) of one head's columns, (TOKENS, COLUMNS) fp32."""
    pointers = query + token.to(tl.int64)[:, None] * (HEADS * SIZE) + (head * SIZE + columns)[None, :]
    mask = (token < tokens)[:, None] & (columns < SIZE)[None, :]
    return _tanh(tl.load(pointers, mask=mask, other=0.0).to(tl.float32))


@triton.jit
def _sum_of_cosines(
    keys, query, tokens, first_token, head, first_column,
    HEADS: tl.constexpr, SIZE: tl.constexpr, PADDED: tl.constexpr,
    TOKENS: tl.constexpr, COLUMNS: tl.constexpr, AT_ONCE: tl.constexpr,
):  # fmt: skip
    """sum_j cos(q_j - k_nj) over these columns, (TOKENS, PADDED)."""
    if COLUMNS > AT_ONCE:
        halves = tl.permute(tl.reshape(keys, (TOKENS, PADDED, 2, COLUMNS // 2)), (0, 1, 3, 2))
        low, high = tl.split(halves)
        total = _sum_of_cosines(
            low, query, tokens, first_token, head, first_column,
            HEADS, SIZE, PADDED, TOKENS, COLUMNS // 2, AT_ONCE,
        )  # fmt: skip
        total += _sum_of_cosines(
            high, query, tokens, first_token, head, first_column + COLUMNS // 2,
            HEADS, SIZE, PADDED, TOKENS, COLUMNS // 2, AT_ONCE,
        )  # fmt: skip
    else:
        columns = first_column + tl.arange(0, COLUMNS)
        token = first_token + tl.arange(0, TOKENS)
        bounded = _bounded_query(query, tokens, token, head, columns, HEADS, SIZE)
        cosines = _cosine_of_difference(bounded[:, None, :], keys)
        total = tl.sum(tl.where((columns < SIZE)[None, None, :], cosines, 0.0), axis=2)
    return total


@triton.jit(do_not_specialize=["tokens"])
def key_scores(
    query, slots, weight, bias, partial_scores, tokens,
    HEADS: tl.constexpr, SIZE: tl.constexpr, SLOTS: tl.constexpr, PADDED: tl.constexpr,
    TOKENS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, AT_ONCE: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """sum_j cos(q_j - k_nj) over each block of a head's columns, (blocks, tokens, R, N) fp32."""
    BLOCKS: tl.constexpr = (SIZE + COLUMNS - 1) // COLUMNS
    # Neighbouring programs share their slots, and all weights stay in the cache.
    head = tl.program_id(0) % (HEADS * BLOCKS) // BLOCKS
    block = tl.program_id(0) % BLOCKS
    first_token = tl.program_id(0) // (HEADS * BLOCKS) * TOKENS
    keys = _bounded_keys(
        slots, weight, bias, tokens, first_token, head, block * COLUMNS,
        SIZE, SLOTS, PADDED, TOKENS, COLUMNS, INNER, UPCAST,
    )  # fmt: skip
    scores = _sum_of_cosines(
        keys, query, tokens, first_token, head, block * COLUMNS,
        HEADS, SIZE, PADDED, TOKENS, COLUMNS, AT_ONCE,
    )  # fmt: skip
    token = first_token + tl.arange(0, TOKENS)
    slot = tl.arange(0, PADDED)
    row = (block * tokens.to(tl.int64) + token) * HEADS + head
    mask = (token < tokens)[:, None] & (slot < SLOTS)[None, :]
    tl.store(partial_scores + row[:, None] * SLOTS + slot[None, :], scores, mask=mask)


@triton.jit(do_not_specialize=["rows"])
def slot_softmax(
    partial_scores, weights, rows, scale,
    BLOCKS: tl.constexpr, SLOTS: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Softmax over the slots of `scale` times the summed partial scores, (rows, N) fp32."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    slot = tl.arange(0, PADDED)
    offsets = row.to(tl.int64)[:, None] * SLOTS + slot[None, :]
    mask = (row < rows)[:, None] & (slot < SLOTS)[None, :]
    scores = tl.zeros((ROWS, PADDED), tl.float32)
    for block in range(BLOCKS):
        scores += tl.load(partial_scores + block * rows.to(tl.int64) * SLOTS + offsets, mask=mask, other=0.0)
    scores = tl.where((slot < SLOTS)[None, :], scores * scale, float("-inf"))
    exponentials = tl.exp(scores - tl.max(scores, axis=1)[:, None])
    tl.store(weights + offsets, exponentials / tl.sum(exponentials, axis=1)[:, None], mask=mask)


@triton.jit
def _slot_block(
    tokens, token, channel,
    SIZE: tl.constexpr, SLOTS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Offsets into (tokens, N, 2M) and what of them is inside, both (TOKENS, PADDED, CHANNELS)."""
    slot = tl.arange(0, PADDED)
    offsets = (token[:, None] * SLOTS + slot[None, :])[:, :, None] * (2 * SIZE) + channel[None, None, :]
    inside = ((token < tokens)[:, None] & (slot < SLOTS)[None, :])[:, :, None] & (channel < 2 * SIZE)[None, None, :]
    return offsets, inside


@triton.jit
def _weights_of_head(
    weights, tokens, token, head,
    HEADS: tl.constexpr, SLOTS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Softmax weights of one head, (TOKENS, PADDED)."""
    slot = tl.arange(0, PADDED)
    mask = (token < tokens)[:, None] & (slot < SLOTS)[None, :]
    return tl.load(weights + (token * HEADS + head)[:, None] * SLOTS + slot[None, :], mask=mask, other=0.0)


@triton.jit(do_not_specialize=["tokens"])
def mix_slots(
    weights, slots, mixed, tokens,
    HEADS: tl.constexpr, SIZE: tl.constexpr, SLOTS: tl.constexpr, PADDED: tl.constexpr,
    TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """sum_n s_n slots_n of every head, (R, tokens, 2M)."""
    FEATURES: tl.constexpr = 2 * SIZE
    BLOCKS: tl.constexpr = (FEATURES + CHANNELS - 1) // CHANNELS
    token = (tl.program_id(0) // BLOCKS * TOKENS + tl.arange(0, TOKENS)).to(tl.int64)
    channel = tl.program_id(0) % BLOCKS * CHANNELS + tl.arange(0, CHANNELS)
    offsets, inside = _slot_block(tokens, token, channel, SIZE, SLOTS, PADDED)
    values = tl.load(slots + offsets, mask=inside, other=0.0).to(tl.float32)
    mask = (token < tokens)[:, None] & (channel < FEATURES)[None, :]
    for head in range(HEADS):
        weight = _weights_of_head(weights, tokens, token, head, HEADS, SLOTS, PADDED)
        total = tl.sum(weight[:, :, None] * values, axis=1)
        pointers = mixed + (head * tokens.to(tl.int64) + token)[:, None] * FEATURES + channel[None, :]
        tl.store(pointers, total.to(mixed.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["tokens"])
def score_gradients(
    mixed_gradient, slots, weights, gradients, tokens, scale,
    HEADS: tl.constexpr, PADDED_HEADS: tl.constexpr, SIZE: tl.constexpr, SLOTS: tl.constexpr, PADDED: tl.constexpr,
    TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """`scale` times the gradient of the softmax's argument, (tokens, R, N), from that of the mixed slots."""
    FEATURES: tl.constexpr = 2 * SIZE
    token = (tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)).to(tl.int64)
    heads = tl.arange(0, PADDED_HEADS)
    by_weight = tl.zeros((TOKENS, PADDED_HEADS, PADDED), tl.float32)
    for start in range(0, FEATURES, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)
        offsets, inside = _slot_block(tokens, token, channel, SIZE, SLOTS, PADDED)
        values = tl.load(slots + offsets, mask=inside, other=0.0).to(tl.float32)
        mask = (token < tokens)[:, None] & (channel < FEATURES)[None, :]
        for head in range(HEADS):
            pointers = mixed_gradient + (head * tokens.to(tl.int64) + token)[:, None] * FEATURES + channel[None, :]
            gradient = tl.load(pointers, mask=mask, other=0.0).to(tl.float32)
            products = tl.sum(values * gradient[:, None, :], axis=2)
            by_weight += tl.where((heads == head)[None, :, None], products[:, None, :], 0.0)
    slot = tl.arange(0, PADDED)
    offsets = (token[:, None] * HEADS + heads[None, :])[:, :, None] * SLOTS + slot[None, None, :]
    mask = ((token < tokens)[:, None] & (heads < HEADS)[None, :])[:, :, None] & (slot < SLOTS)[None, None, :]
    softmax = tl.load(weights + offsets, mask=mask, other=0.0)
    mean = tl.sum(softmax * by_weight, axis=2)
    tl.store(gradients + offsets, softmax * (by_weight - mean[:, :, None]) * scale, mask=mask)


@triton.jit
def _store_key_gradients(
    keys, query, by_score, key_gradient, query_gradient, partial_bias_gradient, tokens, first_token, head, first_column,
    HEADS: tl.constexpr, SIZE: tl.constexpr, SLOTS: tl.constexpr, PADDED: tl.constexpr,
    TOKENS: tl.constexpr, COLUMNS: tl.constexpr, AT_ONCE: tl.constexpr,
):  # fmt: skip
    """Write the columns' part of what `key_gradients` returns."""
    if COLUMNS > AT_ONCE:
        halves = tl.permute(tl.reshape(keys, (TOKENS, PADDED, 2, COLUMNS // 2)), (0, 1, 3, 2))
        low, high = tl.split(halves)
        _store_key_gradients(
            low, query, by_score, key_gradient, query_gradient, partial_bias_gradient,
            tokens, first_token, head, first_column, HEADS, SIZE, SLOTS, PADDED, TOKENS, COLUMNS // 2, AT_ONCE,
        )  # fmt: skip
        _store_key_gradients(
            high, query, by_score, key_gradient, query_gradient, partial_bias_gradient,
            tokens, first_token, head, first_column + COLUMNS // 2,
            HEADS, SIZE, SLOTS, PADDED, TOKENS, COLUMNS // 2, AT_ONCE,
        )  # fmt: skip
    else:
        token = first_token + tl.arange(0, TOKENS)
        columns = first_column + tl.arange(0, COLUMNS)
        slot = tl.arange(0, PADDED)
        inside = token < tokens
        inside_head = columns < SIZE
        long_token = token.to(tl.int64)
        column = head * SIZE + columns
        bounded = _bounded_query(query, tokens, token, head, columns, HEADS, SIZE)
        # d cos(pi (a - b)) / db = pi sin(pi (a - b)), and the opposite for a.
        by_bounded = by_score[:, :, None] * _sine_of_difference(bounded[:, None, :], keys)
        by_key = by_bounded * (1.0 - keys * keys)
        by_query = -tl.sum(by_bounded, axis=1) * (1.0 - bounded * bounded)
        tl.store(
            key_gradient
            + (long_token[:, None] * SLOTS + slot[None, :])[:, :, None] * (HEADS * SIZE)
            + column[None, None, :],
            by_key.to(key_gradient.dtype.element_ty),
            mask=(inside[:, None] & (slot < SLOTS)[None, :])[:, :, None] & inside_head[None, None, :],
        )
        tl.store(
            query_gradient + long_token[:, None] * (HEADS * SIZE) + column[None, :],
            by_query.to(query_gradient.dtype.element_ty),
            mask=inside[:, None] & inside_head[None, :],
        )
        by_bias = tl.sum(tl.reshape(by_key, (TOKENS * PADDED, COLUMNS)), axis=0)
        tl.store(partial_bias_gradient + first_token // TOKENS * (HEADS * SIZE) + column, by_bias, mask=inside_head)


@triton.jit(do_not_specialize=["tokens"])
def key_gradients(
    query, slots, weight, bias, score_gradient, key_gradient, query_gradient, partial_bias_gradient, tokens,
    HEADS: tl.constexpr, SIZE: tl.constexpr, SLOTS: tl.constexpr, PADDED: tl.constexpr,
    TOKENS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, AT_ONCE: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Gradients of the keys before phi, (tokens, N, R M), of the query, and of each block of tokens for the key bias.

    `score_gradient` (tokens, R, N) comes with the factor pi / sqrt(M).
    """
    BLOCKS: tl.constexpr = (SIZE + COLUMNS - 1) // COLUMNS
    head = tl.program_id(0) % (HEADS * BLOCKS) // BLOCKS
    first_token = tl.program_id(0) // (HEADS * BLOCKS) * TOKENS
    first_column = tl.program_id(0) % BLOCKS * COLUMNS
    keys = _bounded_keys(
        slots, weight, bias, tokens, first_token, head, first_column,
        SIZE, SLOTS, PADDED, TOKENS, COLUMNS, INNER, UPCAST,
    )  # fmt: skip
    token = first_token + tl.arange(0, TOKENS)
    slot = tl.arange(0, PADDED)
    by_score = tl.load(
        score_gradient + (token.to(tl.int64) * HEADS + head)[:, None] * SLOTS + slot[None, :],
        mask=(token < tokens)[:, None] & (slot < SLOTS)[None, :],
        other=0.0,
    )
    _store_key_gradients(
        keys, query, by_score, key_gradient, query_gradient, partial_bias_gradient, tokens, first_token, head,
        first_column, HEADS, SIZE, SLOTS, PADDED, TOKENS, COLUMNS, AT_ONCE,
    )  # fmt: skip


@triton.jit(do_not_specialize=["tokens"])
def slot_gradients(
    by_keys, mixed_gradient, weights, gradients, tokens,
    HEADS: tl.constexpr, SIZE: tl.constexpr, SLOTS: tl.constexpr, PADDED: tl.constexpr,
    TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """What reaches the slots through the keys, plus s_n times the gradient of the mixed slots, (tokens, N, 2M) fp32."""
    FEATURES: tl.constexpr = 2 * SIZE
    BLOCKS: tl.constexpr = (FEATURES + CHANNELS - 1) // CHANNELS
    token = (tl.program_id(0) // BLOCKS * TOKENS + tl.arange(0, TOKENS)).to(tl.int64)
    channel = tl.program_id(0) % BLOCKS * CHANNELS + tl.arange(0, CHANNELS)
    offsets, inside = _slot_block(tokens, token, channel, SIZE, SLOTS, PADDED)
    total = tl.load(by_keys + offsets, mask=inside, other=0.0).to(tl.float32)
    mask = (token < tokens)[:, None] & (channel < FEATURES)[None, :]
    for head in range(HEADS):
        weight = _weights_of_head(weights, tokens, token, head, HEADS, SLOTS, PADDED)
        pointers = mixed_gradient + (head * tokens.to(tl.int64) + token)[:, None] * FEATURES + channel[None, :]
        total += weight[:, :, None] * tl.load(pointers, mask=mask, other=0.0).to(tl.float32)[:, None, :]
    tl.store(gradients + offsets, total, mask=inside)
