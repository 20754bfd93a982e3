"""The same functions with hand-written gradients: fewer passes over memory and fewer stored tensors."""

import math
from typing import Any

import torch
from torch import Tensor


def phasor(angles: Tensor) -> Tensor:
    """geo(a) = [sin a ; cos a] over the last dimension, (..., M) to (..., 2M), fp32; only the result is stored."""
    return _Phasor.apply(angles)


def phase_scores(query: Tensor, keys: Tensor) -> Tensor:
    """sum_j cos(phi(q_j) - phi(k_j)) / sqrt(M) with phi(x) = pi tanh(x), over the last dimension of size M.

    `query` and `keys`, before phi, broadcast against each other; fp32 inside and out.
    """
    return _PhaseScores.apply(query, keys)


class _Phasor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, angles: Tensor) -> Tensor:
        size = angles.shape[-1]
        if torch.compiler.is_compiling():
            # It cannot trace results that are written into a part of a tensor, and joins the parts itself.
            features = torch.cat((angles.sin(), angles.cos()), dim=-1)
        else:
            features = angles.new_empty(*angles.shape[:-1], 2 * size)
            torch.sin(angles, out=features[..., :size])
            torch.cos(angles, out=features[..., size:])
        ctx.save_for_backward(features)
        return features

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        size = features.shape[-1] // 2
        sines, cosines = features[..., :size], features[..., size:]
        return (gradients[0][..., :size] * cosines).addcmul_(gradients[0][..., size:], sines, value=-1)


class _PhaseScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor) -> Tensor:
        bounded_query, bounded_keys = _tanh(query.float()), _tanh(keys.float())
        difference = (bounded_query - bounded_keys).mul_(math.pi)
        ctx.scale = 1 / math.sqrt(query.shape[-1])
        scores = difference.cos().sum(dim=-1).mul_(ctx.scale)
        ctx.save_for_backward(bounded_query, bounded_keys, difference)
        ctx.dtypes = query.dtype, keys.dtype
        return scores

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        bounded_query, bounded_keys, difference = ctx.saved_tensors
        # d cos(pi (a - b)) / db = pi sin(pi (a - b)); the opposite for a.
        by_key = difference.sin().mul_((gradients[0] * (ctx.scale * math.pi)).unsqueeze(-1))
        query_gradient = _sum_to(by_key, bounded_query.shape).neg() * _tanh_slope(bounded_query)
        key_gradient = _sum_to(by_key, bounded_keys.shape) * _tanh_slope(bounded_keys)
        return query_gradient.to(ctx.dtypes[0]), key_gradient.to(ctx.dtypes[1])


def _tanh(values: Tensor) -> Tensor:
    """The hyperbolic tangent to an absolute error of 1e-7.

    The library's own keeps the relative error near 0 too, and takes four times as long on CPU.
    """
    return values.mul(2).sigmoid_().mul_(2).sub_(1)


def _tanh_slope(bounded: Tensor) -> Tensor:
    return torch.addcmul(bounded.new_ones(()), bounded, bounded, value=-1)


def _sum_to(tensor: Tensor, shape: torch.Size) -> Tensor:
    return tensor if tensor.shape == shape else tensor.sum_to_size(shape)
