"""The memory write in torch operations with hand-written gradients, for CPUs.

phi(q) - phi(k) with phi(x) = pi tanh(x) is 2 pi (sigmoid(2q) - sigmoid(2k)): torch's sigmoid takes a quarter of the
time of its hyperbolic tangent, at an absolute error of 1e-7. The backward pass takes these sigmoids instead of query
and keys, and the tangents of the values. Tokens are taken in blocks, so that intermediate results need little memory.

What the slots of a token share meets them slot by slot. In one operation, torch would go through the angles of one slot
of one token at a time: with 16 of them, that takes nearly three times as long.
"""

import math

import torch
from torch import Tensor

# Numbers of a block (tokens x slots x angles): 1 MiB in fp32. Half as many cost up to 4 % in calls of operations, twice
# as many gain 2 % at most (4 slots of 16 and of 512 angles, one core of 2).
_BLOCK_SIZE = 2**18

# One pass each, where the products would take two.
_SIGMOID_GRADIENT = torch.ops.aten.sigmoid_backward.grad_input
_TANH_GRADIENT = torch.ops.aten.tanh_backward.grad_input


def tangent(argument: Tensor) -> Tensor:
    """tanh(x) = 2 sigmoid(2x) - 1."""
    return bounded(argument).mul_(2).sub_(1)


def bounded(argument: Tensor, out: Tensor | None = None) -> Tensor:
    """sigmoid(2x)."""
    return torch.mul(argument, 2, out=out).sigmoid_()


def weights(query: Tensor, keys: Tensor, bounded_keys: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`slot_weights` of (tokens, M) and (tokens or 1, N, M): (tokens, N), and the bounded query.

    The bounded keys are written to `bounded_keys`, where it is given.
    """
    tokens, angles = query.shape
    slots = keys.shape[1]
    bounded_query = bounded(query)
    shared = bounded(keys, bounded_keys) if len(keys) == 1 else None
    # Slots first: the softmax then runs along the tokens.
    scores = query.new_empty(slots, tokens)
    size = _block_tokens(slots, angles, tokens)
    buffer = query.new_empty(size, slots, angles)
    for start in range(0, tokens, size):
        block = slice(start, start + size)
        difference = buffer[: tokens - start]
        own = shared
        if own is None:
            own = bounded(keys[block], difference if bounded_keys is None else bounded_keys[block])
        _differences(bounded_query[block], own, difference)
        torch.sum(difference.cos_(), dim=-1, out=scores.t()[block])
    return _softmax(scores.mul_(1 / math.sqrt(angles))), bounded_query


def weights_gradient(
    gradient: Tensor, bounded_query: Tensor, bounded_keys: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of query and keys from that of the weights, (tokens, N)."""
    tokens, angles = bounded_query.shape
    slots = bounded_keys.shape[1]
    product = gradient * weights
    by_score = torch.addcmul(product, weights, product.sum(dim=-1, keepdim=True), value=-1)
    # d cos(2 pi (a - b)) / db = 2 pi sin(2 pi (a - b)), the opposite for a; d sigmoid(2x) / dx = 2 s (1 - s).
    by_score = by_score.mul_(4 * math.pi / math.sqrt(angles)).unsqueeze(-1)
    query_gradient = torch.empty_like(bounded_query)
    is_shared = len(bounded_keys) == 1
    key_gradient = torch.zeros_like(bounded_keys) if is_shared else torch.empty_like(bounded_keys)
    size = _block_tokens(slots, angles, tokens)
    buffer = bounded_query.new_empty(size, slots, angles)
    for start in range(0, tokens, size):
        block = slice(start, start + size)
        by_key = buffer[: tokens - start]
        own = bounded_keys if is_shared else bounded_keys[block]
        _differences(bounded_query[block], own, by_key)
        by_key.sin_().mul_(by_score[block])
        _negative_sum(by_key, query_gradient[block])
        if is_shared:
            key_gradient += by_key.sum(dim=0)
        else:
            _through_sigmoid(by_key, own, out=key_gradient[block])
    if is_shared:
        _through_sigmoid(key_gradient, bounded_keys, out=key_gradient)
    return _through_sigmoid(query_gradient, bounded_query, out=query_gradient), key_gradient


def increments(weights: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """`slot_increments` of (tokens, N) and (tokens, M): (tokens, N, M), and the tangents of the values."""
    tangents = tangent(values)
    result = values.new_empty(*weights.shape, values.shape[1])
    for own, weight in zip(result.unbind(1), _columns(weights), strict=True):
        torch.mul(tangents, weight, out=own)
    return result, tangents


def increments_gradient(gradient: Tensor, weights: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of weights and values from that of the increments, (tokens, N, M)."""
    tokens, slots, angles = gradient.shape
    weights_gradient, values_gradient = torch.empty_like(weights), torch.empty_like(tangents)
    size = _block_tokens(slots, angles, tokens)
    buffer = gradient.new_empty(size, slots, angles)
    for start in range(0, tokens, size):
        block = slice(start, start + size)
        product = buffer[: tokens - start]
        by_value = values_gradient[block].zero_()
        for own, out, weight in zip(
            gradient[block].unbind(1), product.unbind(1), _columns(weights[block]), strict=True
        ):
            torch.mul(own, tangents[block], out=out)
            by_value.addcmul_(own, weight)
        torch.sum(product, dim=-1, out=weights_gradient[block])
    _TANH_GRADIENT(values_gradient, tangents, grad_input=values_gradient)
    return weights_gradient.mul_(math.pi), values_gradient


def _differences(query: Tensor, keys: Tensor, out: Tensor) -> None:
    """phi(q) - phi(k_n) of bounded query (tokens, M) and keys (tokens or 1, N, M); `out` may be the keys."""
    angle = query * (2 * math.pi)
    for own, key in zip(out.unbind(1), keys.unbind(1), strict=True):
        torch.sub(angle, key, alpha=2 * math.pi, out=own)


def _columns(weights: Tensor) -> tuple[Tensor, ...]:
    """Pi times each slot's weights of (tokens, N): (tokens, 1)."""
    return weights.mul(math.pi).unsqueeze(-1).unbind(1)


def _negative_sum(terms: Tensor, out: Tensor) -> None:
    """Minus the sum of (tokens, N, M) over the slots, into (tokens, M)."""
    first, *others = terms.unbind(1)
    torch.neg(first, out=out)
    for other in others:
        out.sub_(other)


def _softmax(scores: Tensor) -> Tensor:
    """Over the first of two dimensions, transposed; torch's own takes five times as long for many tokens of four."""
    scores.sub_(scores.amax(dim=0)).exp_()
    return scores.div_(scores.sum(dim=0)).t().contiguous()


def _through_sigmoid(gradient: Tensor, bounded: Tensor, out: Tensor) -> Tensor:
    """The gradient times s (1 - s); `out` may be the gradient."""
    return _SIGMOID_GRADIENT(gradient, bounded, grad_input=out)


def _block_tokens(slots: int, angles: int, tokens: int) -> int:
    return min(max(1, _BLOCK_SIZE // (slots * angles)), tokens)
