"""Progress over a grid of runs: bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID

from seqbench.comparing.grid import GridRun
from seqbench.errors import Circumstance
from seqbench.evaluating.measured import overall
from seqbench.progress_display import begin_bars, print_line
from seqbench.store.catalogue import last_training_line
from seqbench.training.progress import duration

# Seconds between two looks at the runs' logs for bars, and between two plain lines about them.
_BAR_SECONDS, _LINE_SECONDS = 1.0, 30.0


class GridDisplay:
    """Says on standard error which runs begin, how far they are and how they end.

    Args:
        runs: number of runs in the grid.
        side_by_side: whether runs are silent themselves and their logs are to be followed; a run on its own draws its
            own bar.
    """

    def __init__(self, runs: int, side_by_side: bool) -> None:
        self._runs, self._follow = runs, side_by_side
        self._console = Console(stderr=True)
        self._bars: Progress | None = None
        self._tasks: dict[int, TaskID] = {}
        self._all: TaskID | None = None
        self._started: dict[int, float] = {}
        self._last_look = time.monotonic()

    def __enter__(self) -> "GridDisplay":
        if self._follow:
            self._bars = begin_bars(self._console, "{task.percentage:>3.0f}%  {task.fields[loss]}  left")
        if self._bars is not None:
            self._all = self._bars.add_task("all runs", total=self._runs, loss="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def done_before(self, number: int, cell: GridRun) -> None:
        """The store had the result."""
        self._count()
        self._say(number, cell, "done before")

    def started(self, number: int, cell: GridRun) -> None:
        """A process is at work."""
        self._started[number] = time.monotonic()
        if self._bars is not None:
            self._tasks[number] = self._bars.add_task(_name(cell), total=1.0, loss="")
        self._say(number, cell, str(cell.folder.path))

    def elsewhere(self, number: int, cell: GridRun) -> None:
        """Another command's process is at work on the run."""
        self._forget(number)
        self._say(number, cell, "another bench process is at work on it; waiting for its result")

    def put_off(self, number: int, cell: GridRun, circumstance: Circumstance) -> None:
        """Circumstance has ended its process; it will be tried again."""
        self._forget(number)
        self._say(number, cell, f"{Circumstance.WORDS[circumstance.reason]} ({circumstance.detail}); tried again later")

    def finished(self, number: int, cell: GridRun, result: dict[str, Any]) -> None:
        """The run has a result."""
        taken = duration(time.monotonic() - self._started[number])
        self._forget(number)
        self._count()
        if result["status"] != "complete":
            self._say(number, cell, f"{result['status']} after {taken} ({result['failure']['reason']})")
            return
        value = overall(result)
        figure = "" if value is None else f", {result['task']['primary_metric'].replace('_', ' ')} {value:.4g}"
        self._say(number, cell, f"done in {taken}{figure}")

    def look(self, active: Sequence[tuple[int, GridRun]]) -> None:
        """Follow the logs of the runs at work; does something once in a while only."""
        now = time.monotonic()
        if not self._follow or now - self._last_look < (_BAR_SECONDS if self._bars else _LINE_SECONDS):
            return
        self._last_look = now
        for number, cell in active:
            line = last_training_line(cell.folder.path)
            if line is None:
                continue
            if self._bars is not None:
                self._bars.update(self._tasks[number], completed=line["progress"], loss=_loss(line["loss"]))
            else:
                self._say(number, cell, f"{line['progress']:.0%}  {_loss(line['loss'])}")

    def _say(self, number: int, cell: GridRun, message: str) -> None:
        print_line(self._console, f"[{number + 1}/{self._runs}] {_name(cell)}: {message}")

    def _count(self) -> None:
        if self._bars is not None and self._all is not None:
            self._bars.advance(self._all)

    def _forget(self, number: int) -> None:
        if self._bars is not None:
            self._bars.remove_task(self._tasks.pop(number))


def _loss(value: float | None) -> str:
    return "loss not finite" if value is None else f"loss {value:.3f}"


def _name(cell: GridRun) -> str:
    return f"{cell.plan.label} seed {cell.plan.seed}"
