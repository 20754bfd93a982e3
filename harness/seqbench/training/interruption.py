"""Ctrl-C, termination and a closed terminal, answered at the next step instead of in the middle of one."""

import signal
import time
from types import FrameType, TracebackType

# The same Ctrl-C may come twice: from the terminal, and passed on by the command that has started this process.
_SAME_SECONDS = 0.5


class Interruption:
    """While entered, SIGINT, SIGTERM and SIGHUP set `requested`; a second signal later on interrupts at once.

    A closed terminal that is ignored from the beginning, as `nohup` has it, stays so.
    """

    def __init__(self) -> None:
        self.requested = False
        self._first = 0.0
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interruption":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # A shell lets its background processes ignore Ctrl-C; a grid passes it on to runs that are to stop.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested, self._first = True, time.monotonic()
        elif time.monotonic() - self._first > _SAME_SECONDS:
            raise KeyboardInterrupt
