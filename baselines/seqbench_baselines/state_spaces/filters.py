"""What S4D's parameters make of the tokens of a chunk."""

from typing import Any

import torch
from torch import Tensor

from seqbench_baselines.state_spaces.recurrence import exponential_less_one, powers_of, toeplitz


class Filters:
    """What is made of the parameters for chunks of one size; complex states are real parts above imaginary ones.

    Attributes:
        inside: (channels, size, size), from inputs to outputs.
        from_start: (channels, size, states), from the states before the chunk to its outputs.
        to_end: (channels, states, size), from inputs to the states after the chunk.
    """

    def __init__(self, layer: Any, size: int) -> None:
        """Of the parameters of S4D, for chunks of `size` tokens."""
        step = layer.log_dt.float().exp().unsqueeze(1)
        A_re, A_im = -layer.log_A_real.float().exp(), layer.A_imag.float()
        self._real, self._imaginary = powers_of(step * A_re, step * A_im, size)
        less_re, less_im = exponential_less_one(step * A_re, step * A_im)
        square = A_re.square() + A_im.square()
        hold = (less_re * A_re + less_im * A_im) / square, (less_im * A_re - less_re * A_im) / square
        added_re, added_im = _times(hold, (self._real[..., :size], self._imaginary[..., :size]))
        self.to_end = torch.cat((added_re, added_im), dim=1).flip(2)
        C = layer.C.float().unbind(-1)
        by_input = _times(C, (added_re, added_im))[0].sum(dim=1)
        filters = torch.cat((2 * by_input[:, :1] + layer.D.float().unsqueeze(1), 2 * by_input[:, 1:]), dim=1)
        self.inside = toeplitz(filters)
        read_re, read_im = _times(C, (self._real[..., 1:], self._imaginary[..., 1:]))
        self.from_start = 2 * torch.cat((read_re, -read_im), dim=1).mT

    def turned(self, states: Tensor, tokens: Tensor) -> Tensor:
        """(channels, states, batch) after `tokens` (batch,) tokens of zeros."""
        real, imaginary = self._real[..., tokens], self._imaginary[..., tokens]
        above, below = states.chunk(2, dim=1)
        return torch.cat((real * above - imaginary * below, imaginary * above + real * below), dim=1)


def _times(one: tuple[Tensor, ...], powers: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Complex numbers (channels, states) times (channels, states, size)."""
    real, imaginary = (part.unsqueeze(-1) for part in one)
    return real * powers[0] - imaginary * powers[1], real * powers[1] + imaginary * powers[0]
