"""What operations ask of their arguments."""

from collections.abc import Mapping

import torch
from torch import Tensor


def require_shapes(wanted: Mapping[str, tuple[Tensor | None, tuple[int, ...]]], beside: str, shape: torch.Size) -> None:
    """Raise ValueError, with the argument's name, for a tensor that has not the wanted shape; None has any.

    `beside` and `shape` are the name and the shape of the argument that the others have to fit.
    """
    for name, (tensor, needed) in wanted.items():
        if tensor is not None and tuple(tensor.shape) != needed:
            raise ValueError(f"{name} must be {needed} beside {beside} {tuple(shape)}, not {tuple(tensor.shape)}")


def wants_gradient(*tensors: Tensor | None) -> bool:
    """Whether a backward pass may come, so that something is to be kept for it."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
