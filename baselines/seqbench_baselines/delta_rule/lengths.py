"""Vectors brought to a length, with the gradient by hand: autograd's is a chain of small passes on CPU."""

from typing import Any

import torch
from torch import Tensor


def of_length_reference(values: Tensor, lengths: Tensor, epsilon: float) -> Tensor:
    """The definition, lengths x values / sqrt(sum of squares + epsilon) over the last dimension; differentiable.

    Args:
        values: (..., size).
        lengths: (..., 1), broadcast; has no gradient.
        epsilon: above 0, keeps a vector of zeros what it is.
    """
    return lengths * values * (values.square().sum(dim=-1, keepdim=True) + epsilon).rsqrt()


def of_length(values: Tensor, lengths: Tensor, epsilon: float) -> Tensor:
    """As `of_length_reference`."""
    return _OfLength.apply(values, lengths, epsilon)


class _OfLength(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, lengths: Tensor, epsilon: float) -> Tensor:
        norm = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
        scale = norm.square_().add_(epsilon).rsqrt_().mul_(lengths)
        output = values * scale
        ctx.save_for_backward(output, scale, lengths)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        output, scale, lengths = ctx.saved_tensors
        along = (gradients[0] * output).sum(dim=-1, keepdim=True).div_(lengths.square())
        return torch.addcmul(gradients[0], output, along, value=-1).mul_(scale), None, None
