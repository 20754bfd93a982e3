"""Through torch's own attention: one masked call, or blocks of `window` queries over two blocks of keys."""

import torch
import torch.nn.functional as F
from torch import Tensor

from seqbench_kernels.sliding_window_attention.reference import attention_mask

# Below this many keys one masked call is faster than cutting into blocks (measured on 2 CPU cores, window 4 to 128).
_DENSE_BELOW = 64

# Queries that share a mask where full attention continues a prefix: 256 KiB of mask for each 1,000 keys.
_MASK_ROWS = 256


def library_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: int | None,
    prefix_valid: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """`sliding_window_attention_reference` by scaled_dot_product_attention.

    With a window, time and memory are linear in the length; without one, memory is.
    """
    length, total = query.shape[2], key.shape[2]
    if window is not None and window >= total:
        window = None
    if window is not None:
        if total > max(_DENSE_BELOW, 2 * window):
            return _blockwise(query, key, value, window, prefix_valid, dropout)
    elif total == length or (length == 1 and prefix_valid is None):
        # A whole sequence, or a single token that sees all keys: no mask at all.
        return _one_call(query, key, value, None, dropout)
    elif length > _MASK_ROWS:
        return _by_rows(query, key, value, prefix_valid, dropout)
    mask = attention_mask(length, total, window, prefix_valid, query.device)
    return _one_call(query, key, value, mask, dropout)


def _one_call(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=dropout,
        # In this order: torch.compile can branch on a comparison of lengths, but has no value of it.
        is_causal=query.shape[2] > 1 and mask is None,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _by_rows(query: Tensor, key: Tensor, value: Tensor, prefix_valid: Tensor | None, dropout: float) -> Tensor:
    """Full attention behind a prefix, a few queries at a time over the keys up to their last one."""
    prefix = key.shape[2] - query.shape[2]
    outputs = []
    for start in range(0, query.shape[2], _MASK_ROWS):
        rows = query[:, :, start : start + _MASK_ROWS]
        end = prefix + start + rows.shape[2]
        valid = None if prefix_valid is None else F.pad(prefix_valid, (0, start), value=True)
        mask = attention_mask(rows.shape[2], end, None, valid, query.device)
        outputs.append(_one_call(rows, key[:, :, :end], value[:, :, :end], mask, dropout))
    return torch.cat(outputs, dim=2)


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
