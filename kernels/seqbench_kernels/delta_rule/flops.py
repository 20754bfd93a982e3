"""FLOPs of the chunked delta rule's matrix products and triangular systems, 2 per multiply-accumulate."""

# Tokens of a chunk at most. A decay per channel makes a tensor of chunk x chunk x key_size, and so shorter chunks.
LONGEST_CHUNK = {False: 32, True: 16}


def chunks_of(length: int, per_channel: bool) -> tuple[int, int]:
    """How many chunks a sequence is cut into, and of how many tokens; the last one is filled up."""
    count = -(-length // LONGEST_CHUNK[per_channel])
    return count, -(-length // count)


def forward_flops(length: int, heads: int, key_size: int, value_size: int, per_channel: bool) -> int:
    """Of the forward pass of one row."""
    if length == 1:
        # What the key recalls, the write, the readout.
        return 6 * heads * key_size * value_size
    count, size = chunks_of(length, per_channel)
    scores = 4 * size * size * key_size
    # A triangular system has half of a square one's products.
    system = size * size * (key_size + value_size)
    transition = 2 * size * key_size * (key_size + value_size) + 2 * key_size * key_size * value_size
    outputs = 4 * size * key_size * value_size + 2 * size * size * value_size
    return heads * count * (scores + system + transition + outputs)


def backward_flops(length: int, heads: int, key_size: int, value_size: int, per_channel: bool) -> int:
    """Of the backward pass of one row, which computes everything but the outputs again."""
    count, size = chunks_of(length, per_channel)
    pair, triangle = 2 * size * size, size * size
    again = 2 * pair * key_size + triangle * (key_size + value_size) + 2 * size * key_size * (key_size + value_size)
    # Errors; their gradients, and that of the state, by way of outputs; those of the states after chunks; what comes
    # from all of them to reads, writes and solutions.
    by_state = 2 * size * key_size * value_size * 7 + 2 * key_size * key_size * value_size
    by_pairs = pair * (2 * value_size + (key_size + value_size)) + triangle * (key_size + value_size)
    # P and A: each with a gradient of what asks and of what is asked.
    by_scores = 4 * pair * key_size
    return heads * count * (again + by_state + by_pairs + by_scores)
