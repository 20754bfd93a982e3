"""A linear recurrence with a constant complex factor per state, by its definition and by products over chunks.

Complex numbers are pairs of real ones, and complex products real ones of twice the size: so they are counted as what
they cost. Everything is computed in at least fp32, whatever dtype comes in, under autocast too.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from seqbench_baselines.precision import full_precision

# Tokens of a chunk at most: a state costs that many products a token.
CHUNK = 32


def chunks_of(length: int) -> tuple[int, int]:
    """How many chunks, and tokens of each: as equal as can be, so that little is padded at the end."""
    count = -(-length // CHUNK)
    return count, -(-length // count)


def powers_of(growth: Tensor, angle: Tensor, last: int) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of exp(l (growth + i angle)) for l from 0 to `last`, a new last axis.

    By the exponential of each multiple: repeated products would add their errors up.
    """
    steps = torch.arange(last + 1, device=growth.device, dtype=growth.dtype)
    size, turn = (growth.unsqueeze(-1) * steps).exp(), angle.unsqueeze(-1) * steps
    return size * turn.cos(), size * turn.sin()


def exponential_less_one(growth: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of exp(growth + i angle) - 1, which loses no digits near 0."""
    real = torch.expm1(growth) * angle.cos() - 2 * (angle / 2).sin().square()
    return real, growth.exp() * angle.sin()


def toeplitz(filters: Tensor) -> Tensor:
    """(..., size) filters as causal matrices (..., size, size): entry (i, j) is filter[i - j], zero above."""
    size = filters.shape[-1]
    place = torch.arange(size, device=filters.device)
    return filters[..., (place.unsqueeze(1) - place).clamp(min=0)].tril()


def diagonal_recurrence_reference(growth: Tensor, angle: Tensor, inputs: Tensor, before: Tensor) -> Tensor:
    """s_t = exp(growth + i angle) s_(t-1) + u_t, one token at a time; arguments as in `diagonal_recurrence`."""
    real, imaginary = growth.exp() * angle.cos(), growth.exp() * angle.sin()
    states, state = [], before
    for step in range(inputs.shape[1]):
        turned = torch.stack(
            (real * state[:, 0] - imaginary * state[:, 1], imaginary * state[:, 0] + real * state[:, 1]), dim=1
        )
        state = turned + inputs[:, step]
        states.append(state)
    return torch.stack(states, dim=1)


def diagonal_recurrence(growth: Tensor, angle: Tensor, inputs: Tensor, before: Tensor) -> Tensor:
    """s_t = exp(growth + i angle) s_(t-1) + u_t for all tokens, by products over chunks; differentiable.

    Args:
        growth: (states,), not above 0 for states that stay bounded.
        angle: (states,), in radians.
        inputs: (batch, length, 2, states), real and imaginary parts of u.
        before: (batch, 2, states), the state before the first token.

    Returns:
        (batch, length, 2, states), the state after every token.
    """
    with full_precision(inputs):
        return _in_chunks(growth, angle, inputs, before)


def _in_chunks(growth: Tensor, angle: Tensor, inputs: Tensor, before: Tensor) -> Tensor:
    batch, length, _, states = inputs.shape
    count, size = chunks_of(length)
    real, imaginary = powers_of(growth, angle, size)
    # A state's inputs in a chunk, real parts above imaginary ones, one column for each row and chunk.
    columns = F.pad(inputs, (0, 0, 0, 0, 0, count * size - length)).view(batch, count, size, 2, states)
    columns = columns.permute(4, 3, 2, 0, 1).reshape(states, 2 * size, batch * count)
    to_end = _doubled(real[:, :size].flip(1).unsqueeze(1), imaginary[:, :size].flip(1).unsqueeze(1))
    ends = (to_end @ columns).view(states, 2, batch, count)
    whole = _doubled(real[:, size].view(-1, 1, 1), imaginary[:, size].view(-1, 1, 1))
    starts = [before.permute(2, 1, 0)]
    for index in range(count - 1):
        starts.append(_turn(whole, starts[-1]) + ends[..., index])
    columns = torch.cat((columns, torch.stack(starts, dim=-1).reshape(states, 2, -1)), dim=1)
    inside = _doubled(toeplitz(real[:, :size]), toeplitz(imaginary[:, :size]))
    from_start = _doubled(real[:, 1:].unsqueeze(-1), imaginary[:, 1:].unsqueeze(-1))
    found = torch.cat((inside, from_start), dim=2) @ columns
    found = found.view(states, 2, size, batch, count).permute(3, 4, 2, 1, 0)
    return found.reshape(batch, count * size, 2, states)[:, :length]


def recurrence_flops(length: int, states: int) -> int:
    """Forward FLOPs of the products of one row."""
    count, size = chunks_of(length)
    return count * states * 2 * 2 * size * (2 + 2 * size + 2)


def _doubled(real: Tensor, imaginary: Tensor) -> Tensor:
    """Complex matrices as real ones of twice the size."""
    above, below = torch.cat((real, -imaginary), dim=-1), torch.cat((imaginary, real), dim=-1)
    return torch.cat((above, below), dim=-2)


def _turn(matrix: Tensor, pair: Tensor) -> Tensor:
    """(states, 2, 2) times (states, 2, batch), elementwise."""
    return matrix[:, :, :1] * pair[:, :1] + matrix[:, :, 1:] * pair[:, 1:]
