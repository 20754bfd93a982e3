"""The definition: a softmax over all pairs of tokens, most of which are masked."""

import torch
import torch.nn.functional as F
from torch import Tensor


def sliding_window_attention_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: int | None,
    prefix_valid: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of each query over the last `window` keys, its own included; quadratic in time and memory.

    softmax(query key^T / sqrt(head_dim)) value over the places that `attention_mask` allows, the softmax in at least
    fp32; query head j uses key/value head j // (heads / key_value_heads).

    Args:
        query: (batch, heads, length, head_dim).
        key: (batch, key/value heads, prefix + length, head_dim); the first `prefix` belong to earlier tokens.
        value: as `key`.
        window: how many keys a query sees at most; None for all earlier ones.
        prefix_valid: (batch, prefix) bool, false for places of the prefix that hold no token; None if all do.
        dropout: probability of dropping an attention weight.

    Returns:
        (batch, heads, length, head_dim).
    """
    mask = attention_mask(query.shape[2], key.shape[2], window, prefix_valid, query.device)
    # One more dimension, the query heads that share a key/value head.
    shared = query.unflatten(1, (key.shape[1], -1))
    scores = shared @ key.unsqueeze(2).mT * query.shape[-1] ** -0.5
    scores = scores.masked_fill(~mask.unsqueeze(2), -torch.inf)
    weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
    return (F.dropout(weights, dropout) @ value.unsqueeze(2)).flatten(1, 2)


def attention_mask(
    length: int, total: int, window: int | None, prefix_valid: Tensor | None, device: torch.device
) -> Tensor:
    """(batch or 1, 1, length, total) bool: which of `total` keys the last `length` places see; others as above."""
    prefix = total - length
    places = torch.arange(total, device=device)
    distance = places[prefix:, None] - places
    mask = distance >= 0
    if window is not None:
        mask = mask & (distance < window)
    mask = mask[None, None]
    if prefix_valid is None:
        return mask
    return mask & F.pad(prefix_valid, (0, length), value=True)[:, None, None, :]
