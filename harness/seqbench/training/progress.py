"""Progress for people: a bar on a terminal, plain lines elsewhere."""

import time
from typing import Protocol, Self

from seqbench.progress_display import ProgressDisplay


class ProgressReporter(Protocol):
    """What the trainer tells while it works."""

    def advance(self, step: int, share: float, loss: float, tokens_per_second: float) -> None:
        """Step `step` (counted from 1) is done, and that share of training; loss and rate over the last few steps."""

    def note(self, message: str) -> None:
        """Something worth a line of its own."""


class TrainingProgress(ProgressDisplay):
    """Shows steps, rate, loss and time left on standard error."""

    def __init__(self, label: str, share: float) -> None:
        """`share` of the training is done already, by an earlier process."""
        super().__init__(
            label,
            "{task.percentage:>3.0f}%  step {task.fields[step]}",
            "loss {task.fields[loss]}  {task.fields[rate]} tokens/s  left",
            description=label,
            total=1.0,
            step="-",
            loss="-",
            rate="-",
        )
        self._first = share
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        super().__enter__()
        self._update(completed=self._first)
        return self

    def advance(self, step: int, share: float, loss: float, tokens_per_second: float) -> None:
        """Show that `step` steps, and `share` of the training, are done."""
        rate = f"{tokens_per_second:,.0f}"
        shown = {"description": self._label, "step": f"{step:,}", "loss": f"{loss:.3f}", "rate": rate}
        if self._update(completed=share, **shown) or not self._line_is_due(at_once=share >= 1):
            return
        left = (time.monotonic() - self._started) / max(1e-9, share - self._first) * (1 - share)
        self._say(f"step {step:,}, {share:.0%}  loss {loss:.3f}  {rate} tokens/s  left {duration(left)}")

    def evaluated(self, done: float, total: float, what: str) -> None:
        """Show how far a long evaluation is: `done` of `total`, in the unit and words of `what`."""
        share = done / total if total else 1.0
        self._show(f"{what}, {share:.0%}", share, f"{self._label}: {what}")

    def note(self, message: str) -> None:
        """Print a line above the bar."""
        self._say(message)


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
