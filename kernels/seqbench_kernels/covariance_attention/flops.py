"""FLOPs of covariance attention, 2 per multiply-accumulate: pairs of query and key inside the mask."""


def visible_pairs(length: int, total: int, window: int | None) -> int:
    """Of one head, where the queries are the last `length` of `total` places."""
    before, width = total - length, total if window is None else min(window, total)
    growing = max(0, min(length, width - before))
    return growing * (2 * before + growing + 1) // 2 + (length - growing) * width


def forward_flops(length: int, total: int, heads: int, size: int, window: int | None) -> int:
    """Of the forward pass of one row: two products for scores, one for values."""
    return 6 * size * heads * visible_pairs(length, total, window)


def backward_flops(length: int, total: int, heads: int, size: int, window: int | None) -> int:
    """Of the backward pass of one row: both scores again, and six products for gradients."""
    return 16 * size * heads * visible_pairs(length, total, window)
