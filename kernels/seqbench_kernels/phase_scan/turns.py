"""Phases as whole numbers of 2^-32 turns: 4 bytes each, and sums that are exact whatever their order.

Sums are formed in int32 and overflow, as phases do: the overflow of two's complement takes off whole turns.
"""

import math
import sys

import torch
from torch import Tensor

# A turn has 2^32 steps: a step is 1.5e-9 rad, fifty times finer than fp32 near 2 pi.
STEPS_PER_RADIAN = 2.0**32 / (2 * math.pi)
RADIANS_PER_STEP = 1 / STEPS_PER_RADIAN
_TURN = 2**32

# Added to an fp64 number, it leaves the nearest whole number in the low bits of the sum, modulo 2^32 in the lowest 32.
_TO_LOW_BITS = 1.5 * 2**52
_LOW_WORD = 0 if sys.byteorder == "little" else 1


def radians_to_steps(radians: Tensor) -> Tensor:
    """Nearest whole number of 2^-32 turns, as int64, not wrapped."""
    # Not in place on the conversion's result: of fp64 radians that is the argument itself.
    return radians.to(torch.float64).mul(STEPS_PER_RADIAN).round_().to(torch.int64)


def steps_to_radians(steps: Tensor) -> Tensor:
    """fp32 radians in [0, 2 pi]: the largest step rounds up to 2 pi itself."""
    return steps.bitwise_and(_TURN - 1).to(torch.float64).mul_(RADIANS_PER_STEP).to(torch.float32)


def pack_steps(steps: Tensor) -> Tensor:
    """Whole steps (int64) wrapped into the 4 bytes in which a state is kept (int32; negative for half a turn on)."""
    wrapped = steps.bitwise_and(_TURN - 1)
    return torch.where(wrapped >= _TURN // 2, wrapped - _TURN, wrapped).to(torch.int32)


def packed_table(table: Tensor) -> Tensor:
    """A copy of a state in radians, or in steps of any integer type, as packed steps."""
    if table.dtype == torch.int32:
        return table.clone(memory_format=torch.contiguous_format)
    return pack_steps(radians_to_steps(table) if table.is_floating_point() else table.to(torch.int64))


def write_packed_steps(radians: Tensor, scratch: Tensor, steps: Tensor) -> None:
    """`pack_steps(radians_to_steps(radians))` written into `steps`, both of one shape, below 2^51 steps (3e6 rad).

    `scratch` is fp64 of that shape and contiguous. Nothing is allocated, and nothing converted to integers, for which
    CPUs have no wide instruction.
    """
    scratch.copy_(radians)
    # Not in one call: a fused product is not rounded, and would differ from `radians_to_steps` by a step.
    scratch.mul_(STEPS_PER_RADIAN)
    scratch.add_(_TO_LOW_BITS)
    steps.copy_(_low_words(scratch))


def write_radians(steps: Tensor, scratch: Tensor, radians: Tensor) -> None:
    """`steps_to_radians` of packed steps written into `radians`; `scratch` as in `write_packed_steps`."""
    scratch.copy_(steps.view(torch.uint32))
    scratch.mul_(RADIANS_PER_STEP)
    radians.copy_(scratch)


def _low_words(numbers: Tensor) -> Tensor:
    """The lowest 32 bits of each fp64 number, as int32."""
    return numbers.view(torch.int32)[..., _LOW_WORD::2]
