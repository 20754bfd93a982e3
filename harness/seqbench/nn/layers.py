"""Normalisation and feed-forward layers of a decoder."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last dimension, with a learned weight, computed in fp32.

    Zhang and Sennrich, arXiv 1910.07467, equation 4.
    """

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, values: Tensor) -> Tensor:
        """Normalise (..., size); the result has the dtype of `values`."""
        normalised = F.rms_norm(values.float(), self.weight.shape, self.weight.float(), self.epsilon)
        return normalised.to(values.dtype)


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
