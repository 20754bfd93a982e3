"""Repeats in which all contestants take turns, so that a machine that drifts or is disturbed hurts all alike."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch

from seqbench.speed.clock import Timed, seconds_per_unit
from seqbench.speed.failures import describe_failure, release
from seqbench.speed.records import FAILED, MEASURED, PENDING, Record


class Turns(Protocol):
    """What is told of the rounds while they go on."""

    def begins(self, repeat: int) -> None:
        """A round begins."""

    def timed(self, repeat: int, record: Record) -> None:
        """A contestant had its turn."""

    def ends(self, repeat: int) -> None:
        """A round is over."""


@dataclass
class Cell:
    """A record and what is timed for it; None once there is nothing left to time.

    `within` is entered for every turn, such as a request for paths of operations.
    """

    record: Record
    timed: Timed | None = None
    within: Callable[[], AbstractContextManager[None]] = nullcontext


def run_rounds(cells: Sequence[Cell], repeats: int, device: torch.device, turns: Turns) -> None:
    """Time every cell once a repeat.

    Within a repeat places follow one another, and at each place its contestants, beginning with another one each time.
    A cell that fails keeps what it has and is left out from then on.
    """
    places: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        places.setdefault(tuple(cell.record.place.items()), []).append(cell)
    for repeat in range(repeats):
        turns.begins(repeat)
        for contestants in places.values():
            first = repeat % len(contestants)
            for cell in contestants[first:] + contestants[:first]:
                if cell.timed is not None:
                    _time(cell, device)
                    turns.timed(repeat, cell.record)
        turns.ends(repeat)
    for cell in cells:
        if cell.record.state == PENDING and cell.record.seconds:
            cell.record.state = MEASURED


def _time(cell: Cell, device: torch.device) -> None:
    assert cell.timed is not None
    try:
        with cell.within():
            cell.record.seconds.append(seconds_per_unit(cell.timed, device, cell.record.calls))
        return
    except Exception as error:
        cell.record.give_up(FAILED, describe_failure(error))
    cell.timed = None
    release(device)
