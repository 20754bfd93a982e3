"""Progress of a measurement: a bar on a terminal, plain lines elsewhere, both on standard error."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from seqbench.speed.records import PENDING, Record
from seqbench.training.progress import duration

# Seconds between two plain lines about the same thing.
_LINE_SECONDS = 10.0


class SpeedDisplay:
    """Says what is warmed up, what is left out and why, and how far the rounds are.

    Args:
        cells: how many there are to be warmed up; None where that shows only on the way.
        repeats: rounds.
    """

    def __init__(self, cells: int | None, repeats: int) -> None:
        self._cells, self._repeats, self._done = cells, repeats, 0
        self._turns = self._turns_done = 0
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = self._began = time.monotonic()

    def __enter__(self) -> "SpeedDisplay":
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%  left"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("warming up", total=self._cells)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def warming(self, record: Record) -> None:
        """A cell is begun."""
        self._show(f"warming up {describe(record)}", self._done)

    def warmed(self, record: Record) -> None:
        """It is ready, or will not be run."""
        self._done += 1
        if record.state != PENDING:
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

    def _show(self, text: str, done: int) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, description=text)
            return
        now = time.monotonic()
        if now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            print(f"speed: {text}", file=sys.stderr, flush=True)

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._console.print(f"speed: {text}", highlight=False, markup=False, soft_wrap=True)
        else:
            print(f"speed: {text}", file=sys.stderr, flush=True)


def describe(record: Record) -> str:
    """A cell in a few words, such as "train 4,096 name"."""
    words = [f"{value:,}" if isinstance(value, int) else str(value) for value in record.place.values()]
    return " ".join([*words, record.name])
