"""Through torch's own attention: one masked call, or blocks of `window` queries over two blocks of keys."""

import torch
import torch.nn.functional as F
from torch import Tensor

from seqbench_kernels.sliding_window_attention.reference import attention_mask

# Below this many keys one masked call is faster than cutting into blocks (measured on 2 CPU cores, window 4 to 128).
_DENSE_BELOW = 64


def library_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: int | None,
    prefix_valid: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """`sliding_window_attention_reference` by scaled_dot_product_attention; with a window linear in the length."""
    total = key.shape[2]
    if window is None or total <= max(_DENSE_BELOW, 2 * window):
        return _one_call(query, key, value, window, prefix_valid, dropout)
    return _blockwise(query, key, value, window, prefix_valid, dropout)


def _one_call(
    query: Tensor, key: Tensor, value: Tensor, window: int | None, prefix_valid: Tensor | None, dropout: float
) -> Tensor:
    length, total = query.shape[2], key.shape[2]
    mask = None
    # Without a window, torch needs no mask for a whole sequence nor for a single token that sees all keys.
    if window is not None or (total > length and (length > 1 or prefix_valid is not None)):
        mask = attention_mask(length, total, window, prefix_valid, query.device)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=mask is None and length > 1,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _blockwise(
    query: Tensor, key: Tensor, value: Tensor, window: int, prefix_valid: Tensor | None, dropout: float
) -> Tensor:
    batch, heads, length, head_dim = query.shape
    blocks = -(-length // window)
    key, value, valid = _align(key, value, length, blocks, window, prefix_valid)
    repeats = heads // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    query = F.pad(query, (0, 0, 0, blocks * window - length))
    folded = (
        query.reshape(batch, heads, blocks, window, head_dim).transpose(1, 2).flatten(0, 1),
        _pairs(key, blocks, window),
        _pairs(value, blocks, window),
    )
    mask = _block_mask(window, query.device) & _pairs(valid[:, None, :, None], blocks, window).squeeze(-1)[:, :, None]
    output = F.scaled_dot_product_attention(*folded, attn_mask=mask, dropout_p=dropout)
    output = output.reshape(batch, blocks, heads, window, head_dim).transpose(1, 2)
    return output.reshape(batch, heads, blocks * window, head_dim)[:, :, :length]


def _align(
    key: Tensor, value: Tensor, length: int, blocks: int, window: int, prefix_valid: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Give keys and values a prefix of exactly `window` places and whole blocks; also say which places are real."""
    prefix = key.shape[2] - length
    front, back = window - prefix, blocks * window - length
    # A longer prefix than a window is never seen: a negative padding cuts it off.
    key, value = (F.pad(tensor, (0, 0, front, back)) for tensor in (key, value))
    if prefix_valid is None:
        prefix_valid = torch.ones(key.shape[0], prefix, dtype=torch.bool, device=key.device)
    valid = F.pad(prefix_valid, (front, 0), value=False)
    return key, value, F.pad(valid, (0, blocks * window), value=True)


def _pairs(tensor: Tensor, blocks: int, window: int) -> Tensor:
    """Each block joined to the one before it: (batch, heads, (blocks + 1) * window, size) to (batch * blocks, heads,
    2 * window, size).
    """
    batch, heads, _, size = tensor.shape
    split = tensor.reshape(batch, heads, blocks + 1, window, size)
    pairs = torch.cat((split[:, :, :-1], split[:, :, 1:]), dim=3)
    return pairs.transpose(1, 2).flatten(0, 1)


def _block_mask(window: int, device: torch.device) -> Tensor:
    """(window, 2 * window) bool: key place j of a pair is within the window before query i of its second block."""
    distance = window + torch.arange(window, device=device)[:, None] - torch.arange(2 * window, device=device)
    return (distance >= 0) & (distance < window)
