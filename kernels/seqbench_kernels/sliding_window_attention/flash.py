"""Through the package flash-attn (Dao, arXiv 2307.08691), on CUDA devices in half precision.

Written against the documented interface of flash-attn 2.8 and tested against a stand-in with these semantics; the real
kernels are compared with the definition by a test that needs a CUDA device, and have not been run so far.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_DTYPES = (torch.float16, torch.bfloat16)


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: int | None,
    prefix_valid: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """`sliding_window_attention_reference` by flash-attn; the empty places of a prefix must come before its tokens.

    Raises ValueError for another dtype than fp16 and bf16, and ImportError when flash-attn is not installed.
    """
    if query.dtype not in _DTYPES:
        raise ValueError(
            f"flash_attention_2 computes in float16 or bfloat16, not in {str(query.dtype).removeprefix('torch.')}: load"
            " the model with dtype=torch.bfloat16, run it under torch.autocast, or choose another attn_implementation"
        )
    from flash_attn import flash_attn_func

    # flash-attn has tokens before heads, and aligns the causal mask to the last key.
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    options: dict[str, Any] = {
        "dropout_p": dropout,
        "causal": True,
        # Places to the left and to the right of a query's own; -1 is no limit.
        "window_size": (-1, -1) if window is None else (window - 1, 0),
    }
    if prefix_valid is None or not prefix_valid.shape[1]:
        return flash_attn_func(query, key, value, **options).transpose(1, 2)
    return _without_empty_places(query, key, value, prefix_valid, options).transpose(1, 2)


def _without_empty_places(
    query: Tensor, key: Tensor, value: Tensor, prefix_valid: Tensor, options: dict[str, Any]
) -> Tensor:
    """Rows with keys of different number, one behind the other; all (batch, tokens, heads, head_dim)."""
    from flash_attn import flash_attn_varlen_func

    if (prefix_valid[:, :-1] & ~prefix_valid[:, 1:]).any():
        raise ValueError("flash_attention_2 needs the empty places of a prefix before its tokens")
    batch, length = query.shape[:2]
    valid = F.pad(prefix_valid, (0, length), value=True)
    key_ends = F.pad(valid.sum(dim=1).cumsum(dim=0), (1, 0)).to(torch.int32)
    query_ends = torch.arange(0, (batch + 1) * length, length, dtype=torch.int32, device=query.device)
    output = flash_attn_varlen_func(
        query.flatten(0, 1),
        key[valid],
        value[valid],
        cu_seqlens_q=query_ends,
        cu_seqlens_k=key_ends,
        max_seqlen_q=length,
        max_seqlen_k=key.shape[1],
        **options,
    )
    return output.unflatten(0, (batch, length))
