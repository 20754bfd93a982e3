"""Covariance attention over blocks of queries, forward and backward: no more than a block's scores exist at a time.

With weights w = p (1 + m - c), p a softmax, c = r . k and m = sum p c, and with W the gradient of w, the gradient of c
is p (sum_s p W - W), and that of p is W (1 + m - c) + c sum_s p W. Memory is that of arguments and results, and of the
scores of a block, whose rows become fewer the more keys there are.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from seqbench_kernels.covariance_attention.reference import hidden_pairs

# Elements of a block's scores, over rows and heads: 4 MiB in fp32.
_SCORE_ELEMENTS = 2**20
# Queries of a block at most: more hide too many products behind the mask.
_LONGEST_BLOCK = 128


class _Block(NamedTuple):
    """Some queries and the keys that one of them sees; queries of heads that share keys follow each other.

    Attributes:
        queries, keys: which they are.
        weights: the softmax, (batch, key heads, group x queries, keys).
        along: probe times key, of the same shape.
        mean: of `along` under the weights, with one column.
    """

    queries: slice
    keys: slice
    weights: Tensor
    along: Tensor
    mean: Tensor


def attention_forward(
    query: Tensor, probe: Tensor, key: Tensor, value: Tensor, window: int | None, prefix_valid: Tensor | None
) -> Tensor:
    """The outputs."""
    output = torch.empty_like(query, memory_format=torch.contiguous_format)
    for block in _blocks(query, probe, key, window, prefix_valid):
        weights = block.weights * (1 + block.mean - block.along)
        output[:, :, block.queries] = _by_query_head(weights @ value[:, :, block.keys], query.shape[1])
    return output


def attention_backward(
    gradient: Tensor,
    query: Tensor,
    probe: Tensor,
    key: Tensor,
    value: Tensor,
    window: int | None,
    prefix_valid: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, probe, key and value."""
    heads, scale = query.shape[1], query.shape[3] ** -0.5
    by_query, by_probe = (torch.empty_like(query, memory_format=torch.contiguous_format) for _ in range(2))
    by_key, by_value = (torch.zeros_like(key, memory_format=torch.contiguous_format) for _ in range(2))
    for queries, keys, weights, along, mean in _blocks(query, probe, key, window, prefix_valid):
        by_output, q, r = (_by_key_head(tensor[:, :, queries], key.shape[1]) for tensor in (gradient, query, probe))
        k, tilt = key[:, :, keys], 1 + mean - along
        by_value[:, :, keys] += (weights * tilt).mT @ by_output
        by_weight = by_output @ value[:, :, keys].mT
        weighed = (weights * by_weight).sum(dim=-1, keepdim=True)
        by_along = weights * (weighed - by_weight)
        by_weight = by_weight * tilt + along * weighed
        by_score = weights * (by_weight - (weights * by_weight).sum(dim=-1, keepdim=True)) * scale
        by_query[:, :, queries] = _by_query_head(by_score @ k, heads)
        by_probe[:, :, queries] = _by_query_head(by_along @ k, heads)
        by_key[:, :, keys] += by_score.mT @ q + by_along.mT @ r
    return by_query, by_probe, by_key, by_value


def _blocks(
    query: Tensor, probe: Tensor, key: Tensor, window: int | None, prefix_valid: Tensor | None
) -> Iterator[_Block]:
    (batch, heads, length, size), (key_heads, total) = query.shape, key.shape[1:3]
    longest = max(1, min(_LONGEST_BLOCK, _SCORE_ELEMENTS // (batch * heads * total)))
    count = -(-length // longest)
    each = -(-length // count)
    for first in range(0, length, each):
        stop = min(first + each, length)
        first_key = 0 if window is None else max(0, total - length + first - window + 1)
        queries, keys = slice(first, stop), slice(first_key, total - length + stop)
        hidden = hidden_pairs(length, total, window, prefix_valid, first, stop, keys.start, keys.stop, key.device)
        q, r = (_by_key_head(tensor[:, :, queries], key_heads) for tensor in (query, probe))
        columns = key[:, :, keys].mT
        scores = (q * size**-0.5) @ columns
        scores.unflatten(2, (-1, stop - first)).masked_fill_(hidden.unsqueeze(2), -torch.inf)
        weights, along = scores.softmax(dim=-1), r @ columns
        yield _Block(queries, keys, weights, along, (weights * along).sum(dim=-1, keepdim=True))


def _by_key_head(tensor: Tensor, key_heads: int) -> Tensor:
    """(batch, heads, queries, size) as (batch, key heads, group x queries, size)."""
    return tensor.unflatten(1, (key_heads, -1)).flatten(2, 3)


def _by_query_head(tensor: Tensor, heads: int) -> Tensor:
    """Undo `_by_key_head`."""
    return tensor.unflatten(2, (heads // tensor.shape[1], -1)).flatten(1, 2)
