"""FLOPs of ridge solves, 2 per multiply-accumulate, by formula: torch's counter does not know triangular systems."""

# Tokens of a chunk, whose states exist at once. Longer ones make more products, shorter ones more calls.
CHUNK = 16


def state_flops(length: int, size: int) -> int:
    """Of forming the states of all tokens of a head: decays, as full squares, times outer products."""
    full, rest = divmod(length, CHUNK)
    return 2 * size * size * (full * CHUNK**2 + rest**2)


def solve_flops(size: int, iterations: int) -> int:
    """Of a token of a head: a product of matrix and vector a step; without steps Cholesky's and two triangular ones."""
    return 2 * iterations * size * size if iterations else size**3 // 3 + 2 * size * size


def forward_flops(length: int, heads: int, size: int, iterations: int) -> int:
    """Of the forward pass of one row."""
    return heads * (state_flops(length, size) + length * solve_flops(size, iterations))


def backward_flops(length: int, heads: int, size: int, iterations: int) -> int:
    """Of the backward pass of one row: states and solves again, then the states' products transposed, and keys'."""
    return forward_flops(length, heads, size, iterations) + heads * (
        state_flops(length, size) + 4 * length * size * size
    )
