"""Phases as whole numbers of 2^-32 turns: 4 bytes each, and sums that are exact whatever their order."""

import math

import torch
from torch import Tensor

# A turn has 2^32 steps: a step is 1.5e-9 rad, fifty times finer than fp32 near 2 pi.
_STEPS_PER_RADIAN = 2.0**32 / (2 * math.pi)
_TURN = 2**32


def radians_to_steps(radians: Tensor) -> Tensor:
    """Nearest whole number of 2^-32 turns, as int64, not wrapped."""
    return radians_to_whole_steps(radians).to(torch.int64)


def radians_to_whole_steps(radians: Tensor) -> Tensor:
    """The same as whole numbers in fp64: exact, and with exact sums, below 2^53 steps."""
    # Not in place on the conversion's result: of fp64 radians that is the argument itself.
    return radians.to(torch.float64).mul(_STEPS_PER_RADIAN).round_()


def steps_to_radians(steps: Tensor) -> Tensor:
    """fp32 radians in [0, 2 pi]: the largest step rounds up to 2 pi itself."""
    return steps.bitwise_and(_TURN - 1).to(torch.float64).mul_(1 / _STEPS_PER_RADIAN).to(torch.float32)


def whole_steps_to_radians(steps: Tensor) -> Tensor:
    """`steps_to_radians` of whole numbers in fp64."""
    turns = steps / _TURN
    return turns.sub_(turns.floor()).mul_(2 * math.pi).to(torch.float32)


def pack_steps(steps: Tensor) -> Tensor:
    """Whole steps (int64) wrapped into the 4 bytes in which a state is kept (int32; negative for half a turn on)."""
    wrapped = steps.bitwise_and(_TURN - 1)
    return torch.where(wrapped >= _TURN // 2, wrapped - _TURN, wrapped).to(torch.int32)
