"""Rotary position encoding, with angles in fp64.

Su et al., arXiv 2104.09864, in the rotate-half layout: dimension i is paired with i + head_dim / 2.
"""

from typing import Any

import torch
from torch import Tensor


def rotary_tables(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of position * theta^(-2i / head_dim), each (..., head_dim) in fp32.

    The angles are formed in fp64: in fp32 the angle of position 500,000 is off by up to 0.03 rad.

    Args:
        positions: (...) integer positions.
        head_dim: even size of a head.
        theta: base of the geometric sequence of wavelengths.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device) / head_dim
    angles = positions.to(torch.float64).unsqueeze(-1) * theta**-exponents
    return _double(angles.cos()), _double(angles.sin())


def apply_rotary(heads: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate heads (batch, heads, length, head_dim) by tables of shape (batch or 1, length, head_dim); fp32 inside."""
    cosines, sines = (table.unsqueeze(1) for table in tables)
    return _Rotation.apply(heads.float(), cosines, sines).to(heads.dtype)


def apply_rotary_reference(heads: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """The definition of `apply_rotary`, differentiable by autograd."""
    cosines, sines = (table.unsqueeze(1) for table in tables)
    values = heads.float()
    half = values.shape[-1] // 2
    swapped = torch.cat((-values[..., half:], values[..., :half]), dim=-1)
    return (values * cosines + swapped * sines).to(heads.dtype)


class _Rotation(torch.autograd.Function):
    """A rotation's gradient is the rotation back: nothing is stored but the tables."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        ctx.save_for_backward(cosines, sines)
        return _rotate(values, cosines, sines, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cosines, sines = ctx.saved_tensors
        return _rotate(gradients[0], cosines, sines, -1), None, None


def _rotate(values: Tensor, cosines: Tensor, sines: Tensor, direction: int) -> Tensor:
    half = values.shape[-1] // 2
    rotated = values * cosines
    rotated[..., :half].addcmul_(values[..., half:], sines[..., half:], value=-direction)
    rotated[..., half:].addcmul_(values[..., :half], sines[..., :half], value=direction)
    return rotated


def _double(half: Tensor) -> Tensor:
    return torch.cat((half, half), dim=-1).float()
