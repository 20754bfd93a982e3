"""Progress of a measurement: a bar on a terminal, plain lines elsewhere, both on standard error."""

import time
from typing import Any

from seqbench.progress_display import ProgressDisplay
from seqbench.speed.records import PENDING, Record
from seqbench.training.progress import duration


class SpeedDisplay(ProgressDisplay):
    """Says what is warmed up, what is left out and why, and how far the rounds are.

    Args:
        cells: how many there are to be warmed up; None where that shows only on the way.
        repeats: rounds.
    """

    def __init__(self, cells: int | None, repeats: int) -> None:
        super().__init__("speed", "{task.percentage:>3.0f}%  left", description="warming up", total=cells)
        self._repeats, self._done = repeats, 0
        self._turns = self._turns_done = 0
        self._began = time.monotonic()
        self._told: set[tuple[Any, ...]] = set()

    def warming(self, record: Record) -> None:
        """A cell is begun."""
        self._show(f"warming up {describe(record)}", self._done)

    def warmed(self, record: Record) -> None:
        """It is ready, or will not be run."""
        self._done += 1
        # What an operation's path cannot do, it cannot do in any case of the operation.
        told = (record.place.get("operation", describe(record)), record.name, record.reason)
        if record.state != PENDING and told not in self._told:
            self._told.add(told)
            self._say(f"{describe(record)}: {record.state}: {record.reason}")

    def peaks(self, text: str) -> None:
        """What the device reaches."""
        self._say(text)

    def rounds(self, turns: int) -> None:
        """The warm-up is over; every round has so many turns."""
        self._turns, self._turns_done, self._began = turns * self._repeats, 0, time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.reset(self._task, total=self._turns)

    def timed(self, repeat: int, record: Record) -> None:
        """A contestant had its turn."""
        self._turns_done += 1
        where = f"round {repeat + 1}/{self._repeats}: {describe(record)}"
        left = ""
        if self._bar is None and self._turns:
            passed = time.monotonic() - self._began
            left = f"  left {duration(passed / self._turns_done * max(0, self._turns - self._turns_done))}"
        rate = f", {1 / record.seconds[-1]:,.4g} per second" if record.seconds else ""
        self._show(f"{where}{rate}{left}", self._turns_done)


def describe(record: Record) -> str:
    """A cell in a few words, such as "train 4,096 name"."""
    words = [f"{value:,}" if isinstance(value, int) else str(value) for value in record.place.values()]
    return " ".join([*words, record.name])
