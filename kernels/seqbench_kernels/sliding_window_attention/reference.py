"""The definition: a full mask over all pairs of tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor


def sliding_window_attention_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: int,
    prefix_valid: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of each query over the last `window` keys, its own included; quadratic in time and memory.

    Args:
        query: (batch, heads, length, head_dim).
        key: (batch, key/value heads, prefix + length, head_dim); the first `prefix` belong to earlier tokens.
        value: as `key`.
        window: how many keys a query sees at most.
        prefix_valid: (batch, prefix) bool, false for places of the prefix that hold no token; None if all do.
        dropout: probability of dropping an attention weight.

    Returns:
        (batch, heads, length, head_dim).
    """
    length, total = query.shape[2], key.shape[2]
    prefix = total - length
    places = torch.arange(total, device=query.device)
    distance = places[prefix:, None] - places
    mask = ((distance >= 0) & (distance < window))[None, None]
    if prefix_valid is not None:
        valid = F.pad(prefix_valid, (0, length), value=True)
        mask = mask & valid[:, None, None, :]
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, enable_gqa=query.shape[1] != key.shape[1]
    )
