"""One run of a grid in a process of its own: how it is started, what it holds, and how it ended."""

import json
import os
import signal
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from seqbench.comparing.grid import GridRun
from seqbench.comparing.process import UNKNOWN, BenchProcesses
from seqbench.errors import Circumstance
from seqbench.surroundings.circumstances import circumstance_of, is_crash, signal_name, told_in
from seqbench.surroundings.memory_pressure import held_nearly_all, peak_bytes
from seqbench.surroundings.stopping import EXIT_CODES

_CHUNK_BYTES = 65536
# Of what a process has said last on standard error.
_LAST_BYTES = 4096


@dataclass(frozen=True)
class Ending:
    """How a process ended that has left no result: a reason and a message."""

    reason: str
    message: str


class Child:
    """A process at work on a cell of the grid.

    Attributes:
        number: of the cell in the grid.
        cell: what it is at work on.
        timed_out: whether it was ended for taking too long.
    """

    def __init__(
        self,
        number: int,
        cell: GridRun,
        processes: BenchProcesses,
        arguments: list[str],
        environment: dict[str, str],
        console: Path | None,
    ) -> None:
        """Start `bench` with these arguments, and with these variables besides the present ones.

        `console` is the file for what it says on standard error; None leaves it this process's own. Raises Circumstance
        when there is no process to be had.
        """
        self.number, self.cell, self.timed_out = number, cell, False
        self._console, self._said, self._peak = console, b"", 0
        self._started = time.monotonic()
        try:
            self._available = psutil.virtual_memory().available
            with _opened(console) as stderr:
                self._process = processes.start(arguments, environment, stderr)
        except OSError as error:
            raise circumstance_of(error) or error from error
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._started

    def end_late(self) -> None:
        """End it for taking too long."""
        self.timed_out = True
        self._process.kill()

    def ask_to_stop(self) -> None:
        """Have it save what it has and end; nothing new to a process that knows of it already."""
        self._process.send_signal(signal.SIGTERM)

    def has_ended(self) -> bool:
        """Whether it has ended; to be asked often, since what it says and holds is looked at meanwhile."""
        has_ended = self._process.poll() is not None
        self._listen()
        if not has_ended:
            self._peak = max(self._peak, peak_bytes(self._process.pid))
        return has_ended

    def was_killed(self) -> bool:
        """Whether it was ended by the signal that the system uses when memory runs out."""
        return self._process.returncode == -signal.SIGKILL

    def held_nearly_all_memory(self) -> bool:
        """Whether it held about as much as there was."""
        return held_nearly_all(self._peak, self._available)

    def ending(self) -> Ending:
        """How it ended, without what the system may know of it.

        Raises Circumstance when that says nothing about the run.
        """
        code = self._process.returncode
        if code < 0:
            message = f"the process was ended by {signal_name(-code)}"
            if is_crash(-code):
                return Ending("crash", message)
            raise Circumstance("killed", message)
        if code == UNKNOWN:
            raise Circumstance("killed", "the process that starts the runs was ended")
        if code in EXIT_CODES:
            raise Circumstance("killed", "the process was told to stop, and the comparison was not")
        try:
            told = json.loads(self._said)
            if told["status"] == Circumstance.status:
                raise Circumstance(told["reason"], told["detail"])
            return Ending(told["status"], told["message"])
        except (ValueError, KeyError, TypeError):
            return self._ended_without_words(code)

    def _ended_without_words(self, code: int) -> Ending:
        circumstance = told_in(_end_of(self._console)) if self._console is not None else None
        if circumstance is not None:
            raise circumstance
        return Ending("error", f"the process ended with exit code {code} and no result")

    def _listen(self) -> None:
        """Take what it has said: a pipe that nobody reads would hold up a process that says much."""
        stream = self._process.stdout
        assert stream is not None
        with suppress(BlockingIOError):
            while chunk := stream.read(_CHUNK_BYTES):
                self._said += chunk

    def close(self) -> None:
        """Wait until it has ended, and let go of it."""
        while not self.has_ended():
            time.sleep(0.02)
        assert self._process.stdout is not None
        self._process.stdout.close()


def _opened(console: Path | None) -> "IO[bytes] | nullcontext[None]":
    """The file for what a process says; nowhere when the disk takes no file: the run is worth more than its words."""
    if console is None:
        return nullcontext()
    try:
        console.parent.mkdir(parents=True, exist_ok=True)
        return console.open("wb")
    except OSError:
        return open(os.devnull, "wb")


def _end_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
