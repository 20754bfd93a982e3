"""Inputs of sliding-window attention, and its results with gradients."""

import torch
from model_support import normal
from torch import Tensor


def inputs(
    length: int, prefix: int = 0, heads: int = 2, key_heads: int = 2, batch: int = 2, seed: int = 0
) -> list[Tensor]:
    shapes = ((batch, heads, length, 4), (batch, key_heads, prefix + length, 4), (batch, key_heads, prefix + length, 4))
    return [normal(*shape, seed=seed + index, dtype=torch.float64) for index, shape in enumerate(shapes)]


def validity(batch: int, prefix: int, seed: int = 0) -> Tensor:
    return torch.rand(batch, prefix, generator=torch.Generator().manual_seed(seed)) < 0.6


def with_gradients(attend, tensors: list[Tensor], *arguments) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    output = attend(*leaves, *arguments)
    weights = normal(*output.shape, seed=9, dtype=torch.float64).to(output.device)
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), leaves)]
