"""Layers of complex numbers that go through a decoder of real ones: real parts in front, imaginary ones behind.

A complex tensor of n channels is a real one of 2 n. Its products are real ones of twice the size, four for each.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

# Inside the root of a complex number's size, whose gradient at 0 would be infinite; and beside it in a division.
_LEAST = 1e-8
_NORM_EPSILON = 1e-6


def size_of(values: Tensor) -> Tensor:
    """|z|, (..., channels), of (..., 2 x channels)."""
    real, imaginary = values.chunk(2, dim=-1)
    return (real.square() + imaginary.square() + _LEAST).sqrt()


def scaled(values: Tensor, factors: Tensor) -> Tensor:
    """Complex values (..., 2 x channels) times real factors (..., channels)."""
    return values * torch.cat((factors, factors), dim=-1)


def unit(values: Tensor, size: Tensor) -> Tensor:
    """Z / |z|, its `size` being known; 0 for 0."""
    return scaled(values, 1 / (size + _LEAST))


def times(one: Tensor, other: Tensor) -> Tensor:
    """The complex product, channel by channel."""
    (a, b), (c, d) = one.chunk(2, dim=-1), other.chunk(2, dim=-1)
    return torch.cat((a * c - b * d, a * d + b * c), dim=-1)


class ComplexLinear(nn.Module):
    """A complex linear map, as one product of real matrices."""

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.weight_real, self.weight_imag = (nn.Parameter(torch.empty(outputs, inputs)) for _ in range(2))
        if bias:
            self.bias_real, self.bias_imag = (nn.Parameter(torch.empty(outputs)) for _ in range(2))
        self.has_bias = bias

    def initialise(self) -> None:
        """Two orthogonal matrices of the size that keeps a signal's; biases zero."""
        gain = (2 / sum(self.weight_real.shape)) ** 0.5
        for weight in (self.weight_real, self.weight_imag):
            init.orthogonal_(weight, gain=gain)
        if self.has_bias:
            init.zeros_(self.bias_real)
            init.zeros_(self.bias_imag)

    def forward(self, values: Tensor) -> Tensor:
        """Map (..., 2 x inputs) to (..., 2 x outputs)."""
        real, imaginary = self.weight_real, self.weight_imag
        weight = torch.cat((torch.cat((real, -imaginary), dim=1), torch.cat((imaginary, real), dim=1)))
        return F.linear(values, weight, torch.cat((self.bias_real, self.bias_imag)) if self.has_bias else None)


class ComplexNorm(nn.Module):
    """Sizes are divided by their root mean square and scaled; angles stay."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, values: Tensor) -> Tensor:
        """Of (..., 2 x channels), in fp32; the result has the dtype of `values`."""
        wide = values.float()
        size = size_of(wide)
        root = (size.square().mean(dim=-1, keepdim=True) + _NORM_EPSILON).rsqrt()
        return scaled(wide, size / (size + _LEAST) * root * self.scale.float()).to(values.dtype)


class _Rectifier(nn.Module):
    """modReLU: a bias on the size, rectified, at the angle that was."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(channels))

    def initialise(self) -> None:
        """As published."""
        init.constant_(self.bias, -0.1)

    def forward(self, values: Tensor) -> Tensor:
        """Of (..., 2 x channels)."""
        size = size_of(values)
        return scaled(unit(values, size), F.relu(size + self.bias))


class ComplexGatedUnit(nn.Module):
    """down(g / |g| modReLU(u) sigmoid(|g|)), g and u complex maps of the input."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (ComplexLinear(channels, inner) for _ in range(2))
        self.down_proj = ComplexLinear(inner, channels)
        self.act = _Rectifier(inner)

    def forward(self, values: Tensor) -> Tensor:
        """Map (..., 2 x channels) to the same shape."""
        gate, up = self.gate_proj(values).float(), self.act(self.up_proj(values).float())
        size = size_of(gate)
        found = times(scaled(unit(gate, size), size.sigmoid()), up)
        return self.down_proj(found.to(values.dtype))
