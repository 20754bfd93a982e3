"""The definition (PMNet, arXiv 2605.13370), differentiable by autograd in any floating-point dtype."""

import torch
from torch import Tensor


def phasor_reference(angles: Tensor) -> Tensor:
    """geo(a) = [sin a ; cos a] over the last dimension: (..., M) to (..., 2M)."""
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
