"""Timing a call on a device, and what a call must be like to be timed."""

import time
from typing import Protocol

import torch


class Timed(Protocol):
    """Something that is timed again and again.

    Attributes:
        units: what one call works through: tokens of a model, 1 for an operation.
    """

    units: int

    def prepare(self) -> None:
        """What every call needs beforehand; not timed."""

    def call(self) -> None:
        """What is timed. Keeps nothing that `clear` does not let go of."""

    def clear(self) -> None:
        """Let go of what the call has made; not timed."""


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was told; the CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(timed: Timed, device: torch.device) -> float:
    """Seconds of one call, the device's work included."""
    timed.prepare()
    try:
        synchronize(device)
        started = time.perf_counter()
        timed.call()
        synchronize(device)
        return time.perf_counter() - started
    finally:
        timed.clear()


def seconds_per_unit(timed: Timed, device: torch.device, calls: int) -> float:
    """Mean seconds per unit over that many calls."""
    return sum(seconds_of(timed, device) for _ in range(calls)) / (calls * timed.units)
