"""The memory write in torch operations with hand-written gradients, for CPUs.

Tokens are taken in blocks whose intermediate results stay in the cache of a core. phi(q) - phi(k) with
phi(x) = pi tanh(x) is 2 pi (sigmoid(2q) - sigmoid(2k)): torch's sigmoid takes a quarter of the time of its hyperbolic
tangent, at an absolute error of 1e-7. Between forward and backward only the arguments and the weights are kept; the
backward pass takes the sigmoids again, for less than the passes over memory that keeping them would cost.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

# Numbers of a block (tokens x slots x angles): 256 KiB in fp32. The backward pass has three such buffers at a time.
_BLOCK_SIZE = 2**16


def weights(query: Tensor, keys: Tensor) -> Tensor:
    """`slot_weights` of (tokens, M) and (tokens or 1, N, M): (tokens, N)."""
    tokens, angles = query.shape
    slots = keys.shape[1]
    scores = query.new_empty(tokens, slots)
    shared = _sigmoid(keys) if len(keys) == 1 else None
    buffer = query.new_empty(_block_tokens(slots, angles, tokens), slots, angles)
    for start, end in _blocks(tokens, len(buffer)):
        difference = buffer[: end - start]
        own = _sigmoid(query[start:end]).unsqueeze(1)
        torch.sub(own, _sigmoid(keys[start:end], difference) if shared is None else shared, out=difference)
        torch.sum(difference.mul_(2 * math.pi).cos_(), dim=-1, out=scores[start:end])
    return scores.mul_(1 / math.sqrt(angles)).softmax(dim=-1)


def weights_gradient(gradient: Tensor, query: Tensor, keys: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of query and keys from that of the weights, (tokens, N)."""
    tokens, angles = query.shape
    slots = keys.shape[1]
    by_score = torch.addcmul(gradient * weights, weights, (gradient * weights).sum(dim=-1, keepdim=True), value=-1)
    # d cos(2 pi (a - b)) / db = 2 pi sin(2 pi (a - b)), the opposite for a; d sigmoid(2x) / dx = 2 s (1 - s).
    by_score.mul_(4 * math.pi / math.sqrt(angles))
    query_gradient = torch.empty_like(query)
    is_shared = len(keys) == 1
    key_gradient = torch.zeros_like(keys) if is_shared else torch.empty_like(keys)
    shared = _sigmoid(keys) if is_shared else keys
    buffers = query.new_empty(2, _block_tokens(slots, angles, tokens), slots, angles)
    for start, end in _blocks(tokens, buffers.shape[1]):
        by_key = buffers[0, : end - start]
        own = _sigmoid(query[start:end])
        bounded = shared if is_shared else _sigmoid(keys[start:end], buffers[1, : end - start])
        torch.sub(own.unsqueeze(1), bounded, out=by_key)
        by_key.mul_(2 * math.pi).sin_().mul_(by_score[start:end].unsqueeze(-1))
        torch.sum(by_key, dim=1, out=query_gradient[start:end])
        query_gradient[start:end].mul_(own.addcmul_(own, own, value=-1).neg_())
        if is_shared:
            key_gradient += by_key.sum(dim=0)
        else:
            torch.mul(by_key, bounded.addcmul_(bounded, bounded, value=-1), out=key_gradient[start:end])
    if is_shared:
        key_gradient.mul_(shared.addcmul_(shared, shared, value=-1))
    return query_gradient, key_gradient


def increments(weights: Tensor, values: Tensor) -> Tensor:
    """`slot_increments` of (tokens, N) and (tokens, M): (tokens, N, M)."""
    tokens, slots = weights.shape
    angles = values.shape[1]
    result = values.new_empty(tokens, slots, angles)
    for start, end in _blocks(tokens, _block_tokens(1, angles, tokens)):
        torch.mul(weights[start:end].unsqueeze(2), _angles(values[start:end]).unsqueeze(1), out=result[start:end])
    return result


def increments_gradient(gradient: Tensor, weights: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of weights and values from that of the increments, (tokens, N, M)."""
    tokens, slots, angles = gradient.shape
    weights_gradient, values_gradient = torch.empty_like(weights), torch.empty_like(values)
    buffer = values.new_empty(_block_tokens(slots, angles, tokens), slots, angles)
    for start, end in _blocks(tokens, len(buffer)):
        own, product = gradient[start:end], buffer[: end - start]
        bounded = _sigmoid(values[start:end])
        angle = torch.mul(bounded, 2 * math.pi).sub_(math.pi)
        torch.mul(own, angle.unsqueeze(1), out=product)
        torch.sum(product, dim=-1, out=weights_gradient[start:end])
        torch.mul(own, weights[start:end].unsqueeze(2), out=product)
        torch.sum(product, dim=1, out=values_gradient[start:end])
        values_gradient[start:end].mul_(bounded.addcmul_(bounded, bounded, value=-1).mul_(4 * math.pi))
    return weights_gradient, values_gradient


def _sigmoid(values: Tensor, out: Tensor | None = None) -> Tensor:
    """sigmoid(2x)."""
    return torch.mul(values, 2, out=out).sigmoid_()


def _angles(values: Tensor) -> Tensor:
    """phi(x) = pi tanh(x)."""
    return _sigmoid(values).mul_(2 * math.pi).sub_(math.pi)


def _block_tokens(slots: int, angles: int, tokens: int) -> int:
    return min(max(1, _BLOCK_SIZE // (slots * angles)), tokens)


def _blocks(tokens: int, size: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + size, tokens)) for start in range(0, tokens, size))
