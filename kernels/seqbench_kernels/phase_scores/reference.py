"""The definitions (PMNet, arXiv 2605.13370), differentiable by autograd in any floating-point dtype."""

import math

import torch
from torch import Tensor


def phasor_reference(angles: Tensor) -> Tensor:
    """geo(a) = [sin a ; cos a] over the last dimension: (..., M) to (..., 2M)."""
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def phase_scores_reference(query: Tensor, keys: Tensor) -> Tensor:
    """sum_j cos(phi(q_j) - phi(k_j)) / sqrt(M) with phi(x) = pi tanh(x), over the last dimension of size M.

    `query` and `keys` broadcast against each other; the last dimension is summed.
    """
    difference = math.pi * (query.tanh() - keys.tanh())
    return difference.cos().sum(dim=-1) / math.sqrt(query.shape[-1])
