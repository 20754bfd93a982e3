"""Runs of a grid in child processes: several side by side, each result recorded, whatever happens to a process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch

from seqbench.comparison import GridRun
from seqbench.errors import Busy
from seqbench.grid_display import GridDisplay
from seqbench.runner import record_failure, stands, stored_result

_EXIT_INTERRUPTED = 130

# Seconds between two looks at the children.
_POLL_SECONDS = 0.2


class GridInterrupted(Exception):
    """The user stopped the grid; finished runs are stored and the present ones are in checkpoints."""


@dataclass(frozen=True)
class Place:
    """Where one run at a time computes.

    Attributes:
        environment: variables that give its process this place.
    """

    environment: dict[str, str]


@dataclass
class _Child:
    number: int
    cell: GridRun
    place: Place
    process: subprocess.Popen[str]
    console: IO[str] | None
    started: float = field(default_factory=time.monotonic)
    timed_out: bool = False


def places(jobs: int | None, device: str, budget_kind: str | None, threads: int | None = None) -> list[Place]:
    """Places for as many runs side by side as asked for, or as the machine is best used with.

    On a GPU machine a place is a device. On the CPU the cores are shared out evenly, one run per core when nothing is
    asked for: small models gain little from a second thread. With `threads`, each run has that many, and there are as
    many places as the cores suffice for. Budgets in seconds have one place: their runs are made alone.
    """
    if budget_kind == "seconds":
        jobs = 1
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        devices = torch.cuda.device_count()
        return [Place({"CUDA_VISIBLE_DEVICES": str(index)}) for index in range(min(jobs or devices, devices))]
    cores = int(os.environ.get("OMP_NUM_THREADS", 0)) or _cores()
    if threads is not None:
        # Each run sets them for torch by its option; the variable is for other libraries.
        return [Place({"OMP_NUM_THREADS": str(threads)}) for _ in range(jobs or max(1, cores // threads))]
    if jobs == 1:
        # The only run keeps the threads that it would have on its own.
        return [Place({})]
    jobs = jobs or cores
    return [Place({"OMP_NUM_THREADS": str(max(1, cores // jobs))}) for _ in range(jobs)]


def _cores() -> int:
    """Cores that this process may use; not every system can tell them from those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_grid(
    grid: Sequence[GridRun],
    runs: Path,
    retry_failed: bool,
    where: Sequence[Place],
    logs: Path,
    limit: float | None = None,
) -> list[dict[str, Any]]:
    """Results of all runs in the grid's order: stored ones as they are, missing ones from child processes.

    A run that fails, is killed or cannot be started becomes a failed result, and the rest goes on; a run that another
    process is at work on is waited for. With several places, what the children say on standard error goes to files in
    `logs`. A run that takes more than `limit` seconds, evaluations included, is ended and recorded as timed out; the
    same grid goes on from its last checkpoint when failed runs are to be retried. Raises GridInterrupted when the user
    stopped it.
    """
    with GridDisplay(len(grid), len(where) > 1) as display:
        return _Scheduler(grid, runs, retry_failed, where, logs, limit, display).run()


class _Scheduler:
    def __init__(
        self,
        grid: Sequence[GridRun],
        runs: Path,
        retry_failed: bool,
        where: Sequence[Place],
        logs: Path,
        limit: float | None,
        display: GridDisplay,
    ) -> None:
        self._grid, self._runs, self._retry_failed = grid, runs, retry_failed
        self._logs, self._limit, self._display = logs, limit, display
        self._side_by_side = len(where) > 1
        self._free = list(where)
        self._results: dict[int, dict[str, Any]] = {}
        self._waiting: list[int] = []
        self._elsewhere: list[int] = []
        self._children: list[_Child] = []

    def run(self) -> list[dict[str, Any]]:
        self._take_stored()
        try:
            while self._waiting or self._children or self._elsewhere:
                self._ask_elsewhere()
                self._start_what_can_be()
                self._end_late_ones()
                self._collect()
                self._display.look([(child.number, child.cell) for child in self._children])
                time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            self._stop()
            raise GridInterrupted from None
        return [self._results[number] for number in range(len(self._grid))]

    def _take_stored(self) -> None:
        for number, cell in enumerate(self._grid):
            result = stored_result(cell.plan, cell.folder)
            if result is None or not stands(result, self._retry_failed):
                self._waiting.append(number)
            else:
                self._results[number] = result
                self._display.done_before(number, cell)

    def _ask_elsewhere(self) -> None:
        """Take up what another process has left: its result, or the run itself when that process ended without one."""
        for number in [number for number in self._elsewhere if not self._grid[number].folder.is_locked()]:
            self._elsewhere.remove(number)
            result = stored_result(self._grid[number].plan, self._grid[number].folder)
            if result is None:
                self._waiting.append(number)
            else:
                self._results[number] = result
                self._display.done_before(number, self._grid[number])

    def _end_late_ones(self) -> None:
        for child in self._children:
            if self._limit is not None and time.monotonic() - child.started > self._limit and not child.timed_out:
                child.timed_out = True
                child.process.kill()

    def _start_what_can_be(self) -> None:
        # A run that tests another one's model waits for it, so that both do not train it.
        busy = {self._grid[number].plan.run_hash for number in self._waiting}
        busy |= {child.cell.plan.run_hash for child in self._children}
        busy |= {self._grid[number].plan.run_hash for number in self._elsewhere}
        for number in list(self._waiting):
            plan = self._grid[number].plan
            if self._free and (plan.trained is plan or plan.trained.run_hash not in busy):
                self._waiting.remove(number)
                self._start(number, self._free.pop(0))

    def _start(self, number: int, place: Place) -> None:
        cell = self._grid[number]
        console = None
        if self._side_by_side:
            self._logs.mkdir(parents=True, exist_ok=True)
            console = (self._logs / f"{cell.folder.path.name}.txt").open("w")
        process = subprocess.Popen(
            _command(cell, self._runs, self._retry_failed),
            stdout=subprocess.PIPE,
            stderr=console,
            text=True,
            env={**os.environ, **place.environment},
        )
        self._children.append(_Child(number, cell, place, process, console))
        self._display.started(number, cell)

    def _collect(self) -> None:
        for child in [child for child in self._children if child.process.poll() is not None]:
            output, _ = child.process.communicate()
            self._children.remove(child)
            self._free.append(child.place)
            if child.console is not None:
                child.console.close()
            if child.process.returncode == _EXIT_INTERRUPTED:
                raise KeyboardInterrupt
            self._settle(child, output)

    def _settle(self, child: _Child, output: str) -> None:
        result = stored_result(child.cell.plan, child.cell.folder)
        if result is None:
            reason, message = _explain(child.process.returncode, output)
            if reason == Busy.status:
                # Somebody else's process is at work on it; its result will serve.
                self._display.elsewhere(child.number, child.cell)
                self._elsewhere.append(child.number)
                return
            if child.timed_out:
                reason, message = "time-out", f"stopped after the time limit of {self._limit:g} seconds"
            result = record_failure(child.cell.plan, child.cell.folder, reason, message)
        self._results[child.number] = result
        self._display.finished(child.number, child.cell, result)

    def _stop(self) -> None:
        # A terminal's Ctrl-C reaches the children too; a signal to this process alone is passed on.
        for child in self._children:
            child.process.send_signal(signal.SIGINT)
        for child in self._children:
            child.process.communicate()


def _command(cell: GridRun, runs: Path, retry_failed: bool) -> list[str]:
    command = [sys.executable, "-m", "seqbench.cli", "run", "--json", "--runs", str(runs), *cell.request.arguments()]
    return [*command, "--retry-failed"] if retry_failed else command


def _explain(code: int, output: str) -> tuple[str, str]:
    """Reason and message for a child that ended without a result."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; the system may have run out of memory" if name == "SIGKILL" else ""
        return "killed", f"the process was ended by {name}{hint}"
    try:
        told = json.loads(output)
        return told["status"], told["message"]
    except (ValueError, KeyError, TypeError):
        return "error", f"the process ended with exit code {code} and no result"
