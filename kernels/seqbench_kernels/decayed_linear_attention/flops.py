"""How a sequence is cut into chunks, and FLOPs of the chunked matrix products, 2 per multiply-accumulate."""

# Tokens of a chunk at most.
CHUNK = 64


def chunks_of(length: int) -> tuple[int, int]:
    """How many chunks, and tokens of each: as equal as can be, so that little is padded at the end."""
    count = -(-length // CHUNK)
    return count, -(-length // count)


def forward_flops(
    length: int, heads: int, key_size: int, value_size: int, has_initial_state: bool = False, is_complex: bool = False
) -> int:
    """Of the forward pass of one row; a complex multiplication is four real ones."""
    each = (8 if is_complex else 2) * heads
    if length == 1:
        # One token: the readout of the new state.
        return each * key_size * value_size
    count, size = chunks_of(length)
    tokens = count * size
    # Scores and what they weigh; the states after the chunks; what the states before them add.
    total = tokens * size * (key_size + value_size) + tokens * key_size * value_size
    total += tokens * key_size * value_size if has_initial_state or count > 1 else 0
    return each * total


def backward_flops(
    length: int,
    heads: int,
    key_size: int,
    value_size: int,
    has_initial_state: bool = False,
    has_state_gradient: bool = False,
    is_complex: bool = False,
) -> int:
    """Of the backward pass of one row, which computes the scores again."""
    each = (8 if is_complex else 2) * heads
    count, size = chunks_of(length)
    tokens = count * size
    total = tokens * size * (3 * key_size + 2 * value_size)
    total += 2 * tokens * key_size * value_size if has_initial_state or count > 1 else 0
    total += 2 * tokens * key_size * value_size if has_state_gradient or count > 1 else 0
    return each * total
