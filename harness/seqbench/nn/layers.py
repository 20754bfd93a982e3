"""Normalisation and feed-forward layers of a decoder."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last dimension, with a learned weight, computed in at least fp32.

    Zhang and Sennrich, arXiv 1910.07467, equation 4.
    """

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, values: Tensor) -> Tensor:
        """Normalise (..., size); the result has the dtype of `values`."""
        return rms_norm(widen(values), widen(self.weight), self.epsilon).to(values.dtype)


def widen(values: Tensor) -> Tensor:
    """fp32, or fp64 where it is fp64 already."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def rms_norm_reference(values: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """The definition, values / sqrt(mean(values^2) + epsilon) * weight over the last dimension; differentiable."""
    return values * (values.square().mean(dim=-1, keepdim=True) + epsilon).rsqrt() * weight


def rms_norm(values: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """`rms_norm_reference` with a hand-written gradient: the library's is a chain of small passes on CPU."""
    return _RMSNorm.apply(values, weight, epsilon)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        norm = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
        inverse = norm.square_().div_(values.shape[-1]).add_(epsilon).rsqrt_()
        unit = values * inverse
        ctx.save_for_backward(unit, inverse, weight)
        return unit * weight

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        unit, inverse, weight = ctx.saved_tensors
        scaled = gradients[0] * weight
        along = (scaled * unit).mean(dim=-1, keepdim=True)
        weight_gradient = (gradients[0] * unit).sum_to_size(weight.shape)
        return scaled.addcmul_(unit, along, value=-1).mul_(inverse), weight_gradient, None


class SwiGLU(nn.Module):
    """Gated feed-forward layer down(silu(gate(x)) * up(x)); Shazeer, arXiv 2002.05202, equation 6, without biases."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (..., hidden_size) to (..., hidden_size)."""
        return self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))
