"""The definition of a memory write (PMNet, arXiv 2605.13370), differentiable by autograd in any real dtype."""

import math

from torch import Tensor


def slot_weights_reference(query: Tensor, keys: Tensor) -> Tensor:
    """softmax_n(sum_j cos(phi(q_j) - phi(k_nj)) / sqrt(M)) with phi(x) = pi tanh(x); shapes as `slot_weights`."""
    difference = math.pi * (query.tanh().unsqueeze(2) - keys.tanh())
    return (difference.cos().sum(dim=-1) / math.sqrt(query.shape[-1])).softmax(dim=-1)


def slot_increments_reference(weights: Tensor, values: Tensor) -> Tensor:
    """D_n = s_n phi(v): weights (B, T, N) and values before phi (B, T, M) to (B, T, N, M)."""
    return weights.unsqueeze(-1) * (math.pi * values.tanh()).unsqueeze(2)


def memory_write_reference(query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and increments; `memory_write` says what the arguments are."""
    weights = slot_weights_reference(query, keys)
    return weights, slot_increments_reference(weights, values)
