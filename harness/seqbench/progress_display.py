"""One bar on a terminal, plain lines now and then elsewhere, both on standard error."""

import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from seqbench.surroundings.visible import visible

# Seconds between two plain lines: often enough to see life, rarely enough to read a log.
_LINE_SECONDS = 10.0


def begin_bars(console: Console, *columns: str) -> Progress | None:
    """Bars on a terminal, begun: description, bar, `columns` in rich's format strings, time left. None elsewhere."""
    if not console.is_terminal:
        return None
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *(TextColumn(column) for column in columns),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    bars.start()
    return bars


def print_line(console: Console, text: str) -> None:
    """A line as it is, above the bars where there are some."""
    # A full disk behind standard error, or nobody who reads it, costs no run.
    with suppress(OSError):
        console.print(visible(text), highlight=False, markup=False, emoji=False, soft_wrap=True)


class ProgressDisplay:
    """A context that shows how far one thing is; subclasses say what is shown.

    Args:
        label: what every line begins with.
        columns: what stands between the bar and the time left, in rich's format strings.
        task: what rich's `add_task` takes: description, total, and the fields that the columns name.
    """

    def __init__(self, label: str, *columns: str, **task: Any) -> None:
        self._label, self._columns, self._task_options = label, columns, task
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        self._bar = begin_bars(self._console, *self._columns)
        if self._bar is not None:
            self._task = self._bar.add_task(**self._task_options)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _update(self, **changes: Any) -> bool:
        """Change the bar, and say whether there is one."""
        if self._bar is None or self._task is None:
            return False
        self._bar.update(self._task, **changes)
        return True

    def _show(self, text: str, completed: float, description: str | None = None) -> None:
        """`description`, or else `text`, on the bar; without a bar the line `text`, if the last one is long ago."""
        if not self._update(completed=completed, description=description or text) and self._line_is_due():
            self._say(text)

    def _line_is_due(self, at_once: bool = False) -> bool:
        """Whether the last line is long ago, or is not to be waited for; the next one is then counted from now."""
        now = time.monotonic()
        if now - self._last_line < _LINE_SECONDS and not at_once:
            return False
        self._last_line = now
        return True

    def _say(self, text: str) -> None:
        """A line of its own, above the bar where there is one."""
        print_line(self._console, f"{self._label}: {text}")
