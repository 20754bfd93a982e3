"""Positions as rotations: of complex channels, and of pairs of real ones that are neighbours."""

import torch
from torch import Tensor

from seqbench.mixers import Chunk

_BASE = 10000.0


def channel_rotations(chunk: Chunk, channels: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each position's angle, (batch, length, 1, channels): channel c at base^(-c / channels).

    In fp32, of angles in fp64. One computation for all layers.
    """
    return chunk.once(("rotations", channels, 1), lambda: _tables(chunk.positions, channels, 1))


def pair_rotations(chunk: Chunk, channels: int) -> tuple[Tensor, Tensor]:
    """As `channel_rotations`, (batch, length, 1, channels / 2), for the pairs of channels 2 c and 2 c + 1."""
    return chunk.once(("rotations", channels, 2), lambda: _tables(chunk.positions, channels, 2))


def _tables(positions: Tensor, channels: int, step: int) -> tuple[Tensor, Tensor]:
    rates = _BASE ** -(torch.arange(0, channels, step, dtype=torch.float64, device=positions.device) / channels)
    angles = (positions.double().unsqueeze(-1) * rates).unsqueeze(2)
    return angles.cos().float(), angles.sin().float()


def turned(values: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Complex channels (batch, length, 2, heads, channels), real parts before imaginary ones, turned by the tables."""
    (cosine, sine), (real, imaginary) = tables, values.unbind(2)
    return torch.stack((real * cosine - imaginary * sine, real * sine + imaginary * cosine), dim=2)


def turned_pairs(values: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Neighbouring channels of (batch, length, heads, channels) turned by the tables."""
    (cosine, sine), (first, second) = tables, (values[..., 0::2], values[..., 1::2])
    return torch.stack((first * cosine - second * sine, first * sine + second * cosine), dim=-1).flatten(-2)


def as_complex(values: Tensor) -> Tensor:
    """(batch, length, heads, channels) complex of (batch, length, 2, heads, channels)."""
    return torch.complex(values[:, :, 0].contiguous(), values[:, :, 1].contiguous())
