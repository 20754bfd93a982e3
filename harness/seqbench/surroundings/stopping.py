"""Ctrl-C, termination and a closed terminal: one answer for the whole process.

`install` comes before anything heavy is imported. From then on a signal raises `Stopped`, which cleans up on its way
out to `end`. Training notes it instead (`noted`) and answers between two steps. While a module is being imported the
process ends at once: there is nothing to save, and libraries swallow or misreport what is raised while they load.
Imports nothing heavy.
"""

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Exit codes of a command that one of them has ended, as shells have it.
EXIT_CODES = tuple(128 + number for number in SIGNALS)
# In the environment of a command that another one has started: that one says how to go on.
PART_OF_ANOTHER = "SEQBENCH_PART_OF_ANOTHER"

# The same Ctrl-C may come twice: from the terminal, and passed on by a program that has started this process.
_SAME_SECONDS = 0.5
# How long child processes have to save what they are at work on when this one ends at once.
_PATIENCE_SECONDS = 10.0
_SHOW_CURSOR = b"\x1b[?25h"


class Stopped(BaseException):
    """A signal asks the process to end. No Exception and no KeyboardInterrupt, which plugins and libraries answer.

    Attributes:
        number: the signal.
        kept: says what is saved, in a few words.
    """

    def __init__(self, number: int, kept: Callable[[], str]) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.kept = number, kept


def _nothing_kept() -> str:
    return "and there was nothing to save"


class _Process:
    """What this process knows of signals; there is one for the whole process, as there is of signals.

    Attributes:
        owner: id of the process that has installed the answers; a fork of it, such as a library's worker, has none.
        received: the first signal, and `since` when it came, in seconds of the monotonic clock.
        is_raised: whether `Stopped` was raised for it.
        is_noted: whether signals are noted at present, to be answered later.
        kept: says what is saved.
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.received: int | None = None
        self.since = 0.0
        self.is_raised = self.is_noted = False
        self.kept = _nothing_kept

    def answer(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self.received is None:
            self.received, self.since = number, time.monotonic()
            if self.is_noted:
                return
            if _is_importing(frame):
                self.end_at_once(_PATIENCE_SECONDS)
            self.raise_it()
        # Only somebody at a keyboard is in a hurry: termination is also passed on to those who know of it.
        elif number == signal.SIGINT and time.monotonic() - self.since > _SAME_SECONDS:
            if self.is_raised:
                self.end_at_once(0.0)
            self.raise_it()

    def raise_it(self) -> NoReturn:
        assert self.received is not None
        self.is_raised = True
        raise Stopped(self.received, self.kept)

    def end_at_once(self, patience: float) -> NoReturn:
        assert self.received is not None
        end_children(patience)
        shown = _SHOW_CURSOR if os.isatty(2) else b""
        with suppress(OSError):
            os.write(2, shown + f"{farewell(self.received, self.kept)}\n".encode())
        os._exit(128 + self.received)


_PROCESS = _Process()


def install() -> None:
    """Answer signals from now on. A closed terminal that is ignored from the beginning, as `nohup` has it, stays so."""
    # A fork of a process that answers signals has nothing of its own to save or to say yet.
    global _PROCESS
    _PROCESS = _Process()
    for number in SIGNALS:
        # A shell lets its background processes ignore Ctrl-C; whoever sends it to this one means it.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _PROCESS.answer)
    unraisable = sys.unraisablehook

    def answer_unraisable(found: "sys.UnraisableHookArgs", /) -> None:
        # Raised where Python drops it: in a destructor, or in a callback of a library.
        if isinstance(found.exc_value, Stopped):
            _PROCESS.end_at_once(_PATIENCE_SECONDS)
        unraisable(found)

    sys.unraisablehook = answer_unraisable


@contextmanager
def noted() -> Iterator[Callable[[], bool]]:
    """Inside, a signal is noted; the function that this gives tells whether one was. Leaving answers it.

    A second Ctrl-C interrupts at once.
    """
    before, _PROCESS.is_noted = _PROCESS.is_noted, True
    try:
        yield lambda: _PROCESS.received is not None
    finally:
        _PROCESS.is_noted = before
    if not before:
        answer_noted()


@contextmanager
def answered() -> Iterator[None]:
    """Inside, a signal raises `Stopped` although what is around notes it; one that was noted does so right away."""
    before, _PROCESS.is_noted = _PROCESS.is_noted, False
    try:
        answer_noted()
        yield
    finally:
        _PROCESS.is_noted = before


def answer_noted() -> None:
    """Raise `Stopped` when a signal was noted."""
    if _PROCESS.received is not None:
        _PROCESS.raise_it()


@contextmanager
def keeping(kept: Callable[[], str]) -> Iterator[None]:
    """Inside, `kept` says what is saved when a signal comes, in words such as "saved in runs/x"."""
    before, _PROCESS.kept = _PROCESS.kept, kept
    try:
        yield
    finally:
        # Who is on the way out has more to say than those whom it passes.
        if not _PROCESS.is_raised:
            _PROCESS.kept = before


def farewell(number: int, kept: Callable[[], str]) -> str:
    """One line: what has ended the command, what is saved, and what to type to go on."""
    # What is said rests on files, and these may be what was going wrong.
    try:
        saved = kept()
    except Exception as error:
        saved = f"and what is saved cannot be told ({type(error).__name__}: {error})"
    line = f"bench: stopped by {signal.Signals(number).name}, {saved}"
    if PART_OF_ANOTHER in os.environ:
        return line
    return f"{line}; to go on, type: {shlex.join(['bench', *sys.argv[1:]])}"


def end_children(patience: float) -> None:
    """End the processes that this one has started, and those that they have; killed after `patience` seconds."""
    # Looked for where there is more than the start-up to have started any.
    if "subprocess" not in sys.modules and "multiprocessing" not in sys.modules:
        return
    with suppress(Exception):
        import psutil

        # Python's own tracker of shared memory cleans up, and ends by itself.
        trackers = "multiprocessing.resource_tracker"
        found = [
            child
            for child in psutil.Process().children(recursive=True)
            if not any(trackers in word for word in child.cmdline())
        ]
        for child in found:
            with suppress(psutil.NoSuchProcess):
                child.terminate()
        _, left = psutil.wait_procs(found, timeout=patience)
        for child in left:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
