"""Through torch's FlexAttention: one fused kernel on CUDA, which skips the blocks of keys outside the window.

Its mask and its tables of blocks are compared with the definition on CPU, where FlexAttention computes forward; the
kernels themselves are compared with it by a test that needs a CUDA device, and have not been run so far.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import flex_attention as library
from torch.nn.attention.flex_attention import BlockMask

# Places in a block of the tables, of queries and of keys: FlexAttention's own choice, to which its kernels are tuned.
_BLOCK = 128


def flex_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: int | None,
    prefix_valid: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """`sliding_window_attention_reference` by FlexAttention, on CUDA.

    With a window its work is linear in the length. The tables hold 16 bytes for each pair of a block of 128 queries and
    one of 128 keys: 4 MiB at 65,536 tokens.

    Raises ValueError for tensors on a CPU, where FlexAttention has no backward pass, and for dropout, which it has not.
    """
    if query.device.type == "cpu":
        raise ValueError(
            "flex_attention has no backward pass on a CPU: choose another attn_implementation there, such as sdpa"
        )
    if dropout:
        raise ValueError("flex_attention has no dropout of attention weights: choose sdpa, or attention_dropout 0")
    mask = window_block_mask(query.shape[2], key.shape[2], window, prefix_valid, query.device)
    # Inside a compiled region it is compiled with the rest; outside, it would compute all scores unless compiled here.
    attend: Any = library.flex_attention if torch.compiler.is_compiling() else _compiled()
    return attend(query, key, value, block_mask=mask, enable_gqa=query.shape[1] != key.shape[1])


@cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(library.flex_attention)


def window_block_mask(
    length: int, total: int, window: int | None, prefix_valid: Tensor | None, device: torch.device
) -> BlockMask:
    """Which of `total` keys the last `length` places see, by a function of two places and by tables of blocks.

    The tables are worked out from the bounds of the blocks; the mask of all pairs is never formed.
    """
    seen, wholly = _blocks_seen(length, total, window, device)
    if prefix_valid is not None:
        # Any block may hold an empty place, so that none can go without a look at its places.
        wholly = torch.zeros_like(wholly)
    return BlockMask.from_kv_blocks(
        *_in_order(seen & ~wholly),
        *_in_order(wholly),
        BLOCK_SIZE=_BLOCK,
        mask_mod=_mask_function(length, total, window, prefix_valid, device),
        seq_lengths=(length, total),
    )


def _blocks_seen(length: int, total: int, window: int | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """(blocks of queries, blocks of keys) bool: some query sees some key of the block; every query sees every key."""
    prefix = total - length
    # Places of a block's first and last query and key, counted over all keys.
    first_query = prefix + torch.arange(0, length, _BLOCK, device=device).unsqueeze(1)
    last_query, end = first_query + _BLOCK - 1, total - 1
    first_key = torch.arange(0, total, _BLOCK, device=device)
    last_key = first_key + _BLOCK - 1
    seen = first_key <= last_query.clamp(max=end)
    # A block that reaches beyond the end is never whole.
    wholly = (last_key <= first_query) & (last_query <= end)
    if window is not None:
        seen = seen & (last_key > first_query - window)
        wholly = wholly & (first_key > last_query - window)
    return seen, wholly


def _in_order(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """A table of blocks as FlexAttention takes it: how many in each row, and their numbers first in the row."""
    numbers = blocks.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(dim=-1).to(torch.int32)[None, None], numbers.to(torch.int32)[None, None]


def _mask_function(
    length: int, total: int, window: int | None, prefix_valid: Tensor | None, device: torch.device
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Whether query place `step` of a row sees key place `place`, in the form that FlexAttention asks for."""
    # A tensor and no number: a compiled kernel then serves every prefix.
    prefix = torch.tensor(total - length, device=device)
    valid = None if prefix_valid is None else F.pad(prefix_valid, (0, length), value=True)

    def sees(row: Tensor, head: Tensor, step: Tensor, place: Tensor) -> Tensor:
        del head
        distance = step + prefix - place
        seen = distance >= 0
        if window is not None:
            seen = seen & (distance < window)
        return seen if valid is None else seen & valid[row, place]

    return sees
