"""What flash-attn 2.8 documents of its two functions, in plain torch and in fp64 inside.

flash_attn_func: q (batch, length, heads, size), k and v (batch, keys, key/value heads, size); query head j uses
key/value head j // (heads / key_value_heads). With `causal`, the mask is aligned to the bottom right. `window_size`
(left, right): query i sees keys i + keys - length - left to i + keys - length + right, -1 being no limit.
flash_attn_varlen_func: the same for rows of different length, one behind the other, that end where cu_seqlens (int32,
batch + 1) say. Half precision only.
"""

import sys
import types

import pytest
import torch
from torch import Tensor


def install(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put the stand-in where `import flash_attn` finds it; returns the names of its functions as they are called."""
    calls: list[str] = []

    def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, **options) -> Tensor:
        calls.append("flash_attn_func")
        return torch.stack([one_row(*row, dropout_p, **options) for row in zip(q, k, v, strict=True)])

    def flash_attn_varlen_func(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        dropout_p: float = 0.0,
        **options,
    ) -> Tensor:
        calls.append("flash_attn_varlen_func")
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
        assert cu_seqlens_q[-1] == len(q) and cu_seqlens_k[-1] == len(k) == len(v)
        lengths = [ends.diff().tolist() for ends in (cu_seqlens_q, cu_seqlens_k)]
        assert max(lengths[0]) <= max_seqlen_q and max(lengths[1]) <= max_seqlen_k
        rows = zip(q.split(lengths[0]), k.split(lengths[1]), v.split(lengths[1]), strict=True)
        return torch.cat([one_row(*row, dropout_p, **options) for row in rows])

    module = types.ModuleType("flash_attn")
    module.flash_attn_func, module.flash_attn_varlen_func = flash_attn_func, flash_attn_varlen_func
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    return calls


def one_row(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    """(length, heads, size) from one sequence; a query without a key gives zeros."""
    assert query.dtype == key.dtype == value.dtype and query.dtype in (torch.float16, torch.bfloat16)
    length, heads, size = query.shape
    keys, shared = len(key), heads // key.shape[1]
    left, right = window_size
    own = torch.arange(length)[:, None] + keys - length
    places = torch.arange(keys)[None, :]
    seen = torch.ones(length, keys, dtype=torch.bool)
    if causal:
        seen &= places <= own
    if left >= 0:
        seen &= places >= own - left
    if right >= 0:
        seen &= places <= own + right
    outputs = []
    for head in range(heads):
        keys_of_head, values_of_head = key[:, head // shared].double(), value[:, head // shared].double()
        scores = query[:, head].double() @ keys_of_head.T * (size**-0.5 if softmax_scale is None else softmax_scale)
        weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1).nan_to_num()
        outputs.append(torch.nn.functional.dropout(weights, dropout) @ values_of_head)
    return torch.stack(outputs, dim=1).to(query.dtype)
