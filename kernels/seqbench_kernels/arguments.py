"""What operations ask of their arguments."""

from collections.abc import Mapping

import torch
from torch import Tensor


def require_shapes(
    name_of_first: str, first: Tensor, others: Mapping[str, tuple[Tensor | None, tuple[int, ...]]]
) -> None:
    """Raise ValueError, with its name, for one of the `others` that has not the shape beside it; None has any.

    `first` is the argument that the others have to fit.
    """
    for name, (tensor, shape) in others.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} must be {shape} beside {name_of_first} {tuple(first.shape)}, not {tuple(tensor.shape)}"
            )


def computing_dtype(*tensors: Tensor | None) -> torch.dtype:
    """fp64 where an argument is fp64, else fp32: half precision is widened, since errors add up over a sequence."""
    double = any(tensor is not None and tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if double else torch.float32


def wants_gradient(*tensors: Tensor | None) -> bool:
    """Whether a backward pass may come, so that something is to be kept for it."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
