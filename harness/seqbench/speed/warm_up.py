"""Everything that is done to a cell before its first timed call, and what is measured meanwhile: memory, mostly."""

import math

import torch

from seqbench.speed.clock import Timed, seconds_of
from seqbench.speed.high_water import rise
from seqbench.speed.records import Record

# A timing shorter than this says more of the clock and the scheduler than of what is timed: calls are added up.
_LEAST_SECONDS = 0.1
_MOST_CALLS = 64
# A second call, from which the number of calls follows, is not made where the first took this long.
_LONG_SECONDS = 5.0


def warm_up(timed: Timed, record: Record, device: torch.device, compiles: bool = False) -> float:
    """Call it untimed, decide how many calls a repeat has, and measure its memory; returns the seconds of a call.

    Three calls: the first, in which things are made once and compiled; one more, unless the first was long and did not
    compile; one whose memory is recorded.
    """
    record.units = timed.units
    record.first_call_seconds = seconds = seconds_of(timed, device)
    if seconds < _LONG_SECONDS or compiles:
        seconds = seconds_of(timed, device)
    record.calls = min(_MOST_CALLS, max(1, math.ceil(_LEAST_SECONDS / max(seconds, 1e-9))))
    record.rise_bytes = rise_of(timed, device)
    return seconds


def rise_of(timed: Timed, device: torch.device) -> int:
    """`rise` of one call; what it makes lasts until the mark is read."""
    timed.prepare()
    try:
        return rise(timed.call, device)
    finally:
        timed.clear()
