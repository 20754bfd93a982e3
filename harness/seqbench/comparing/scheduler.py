"""Runs of a grid in child processes: several side by side, each result recorded, whatever happens to a process."""

import os
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from seqbench.comparing.child import Child
from seqbench.comparing.display import GridDisplay
from seqbench.comparing.grid import GridRun
from seqbench.comparing.process import BenchProcesses
from seqbench.errors import Busy, Circumstance, RequestError
from seqbench.evaluating.result import failed, unfinished
from seqbench.running.runner import record_failure
from seqbench.running.standing import TIME_OUT, standing_result
from seqbench.store.attempts import attempts, record_attempt
from seqbench.surroundings.memory_pressure import KillsForMemory
from seqbench.surroundings.variables import asked_threads

# Seconds between two looks at the children.
_POLL_SECONDS = 0.2

# Seconds that pass before a run that circumstance has ended is tried again; after the last try it is given up.
_PAUSES = (1.0, 8.0)
# What may be otherwise once the other runs of the grid are done.
_SHARED = ("memory-taken", "no-process", "no-room")


@dataclass(frozen=True)
class Place:
    """Where one run at a time computes.

    Attributes:
        environment: variables that give its process this place.
    """

    environment: dict[str, str]


@dataclass(frozen=True)
class _Pause:
    """Before a run is tried again.

    Attributes:
        until: seconds of the monotonic clock.
        alone: whether the other runs are to end first.
    """

    until: float = 0.0
    alone: bool = False


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
    cores = asked_threads() or _cores()
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

    A run that fails or crashes becomes a failed result, and the rest goes on; a run that another process is at work on
    is waited for. One that circumstance ends (killed from outside, a full disk, no process to be had) is tried again;
    what is given up after three times has the status "unfinished" and is not stored. With several places, what the
    children say on standard error goes to files in `logs`. A run that takes more than `limit` seconds, evaluations
    included, is ended and recorded as timed out; with a larger limit it goes on from its last checkpoint. A signal is
    passed on to the runs at work, which save what they have.
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
        # What was stored before a run's process was started, and how many attempts were counted.
        self._before: dict[int, tuple[dict[str, Any] | None, int]] = {}
        self._waiting: list[int] = []
        self._elsewhere: list[int] = []
        self._children: dict[Child, Place] = {}
        self._stopped: dict[int, list[str]] = defaultdict(list)
        self._pauses: dict[int, _Pause] = {}
        self._kills = KillsForMemory()
        self._processes = BenchProcesses()

    def run(self) -> list[dict[str, Any]]:
        self._take_stored()
        try:
            while self._waiting or self._children or self._elsewhere:
                self._ask_elsewhere()
                self._start_what_can_be()
                self._end_late_ones()
                self._kills.look()
                self._collect()
                self._display.look([(child.number, child.cell) for child in self._children])
                time.sleep(_POLL_SECONDS)
        except BaseException:
            self._stop()
            raise
        return [self._results[number] for number in range(len(self._grid))]

    def _take_stored(self) -> None:
        for number, cell in enumerate(self._grid):
            result = standing_result(cell.plan, cell.folder, self._runs, self._retry_failed, self._limit)
            if result is None:
                self._waiting.append(number)
            else:
                self._results[number] = result
                self._display.done_before(number, cell)

    def _ask_elsewhere(self) -> None:
        """Take up what another process has left: its result, or the run itself when that process ended without one."""
        for number in [number for number in self._elsewhere if not self._grid[number].folder.is_locked()]:
            self._elsewhere.remove(number)
            result = _stored(self._grid[number])
            if result is None:
                self._waiting.append(number)
            else:
                self._results[number] = result
                self._display.done_before(number, self._grid[number])

    def _end_late_ones(self) -> None:
        for child in self._children:
            if self._limit is not None and child.seconds() > self._limit and not child.timed_out:
                child.end_late()

    def _start_what_can_be(self) -> None:
        # A run that tests another one's model waits for it, so that both do not train it.
        busy = {self._grid[number].plan.run_hash for number in self._waiting}
        busy |= {child.cell.plan.run_hash for child in self._children}
        busy |= {self._grid[number].plan.run_hash for number in self._elsewhere}
        for number in list(self._waiting):
            plan, pause = self._grid[number].plan, self._pauses.get(number, _Pause())
            is_due = time.monotonic() >= pause.until and not (pause.alone and self._children)
            if self._free and is_due and (plan.trained is plan or plan.trained.run_hash not in busy):
                self._waiting.remove(number)
                self._start(number, self._free.pop(0))

    def _start(self, number: int, place: Place) -> None:
        cell = self._grid[number]
        console = self._logs / f"{cell.folder.path.name}.txt" if self._side_by_side else None
        self._before[number] = _stored(cell), len(attempts(cell.folder))
        self._display.started(number, cell)
        try:
            child = Child(
                number,
                cell,
                self._processes,
                _arguments(cell, self._runs, self._retry_failed),
                place.environment,
                console,
            )
        except Circumstance as circumstance:
            self._free.append(place)
            self._put_off(number, circumstance)
        else:
            self._children[child] = place

    def _collect(self) -> None:
        for child in [child for child in self._children if child.has_ended()]:
            self._free.append(self._children.pop(child))
            child.close()
            try:
                self._settle(child)
            except Circumstance as circumstance:
                self._put_off(child.number, circumstance)

    def _settle(self, child: Child) -> None:
        """Take the result that a process has left, or make one of how it ended; Circumstance where that is none."""
        result = _stored(child.cell)
        if result is None or result == self._before[child.number][0]:
            result = self._explain(child)
        if result is None:
            self._display.elsewhere(child.number, child.cell)
            self._elsewhere.append(child.number)
        else:
            self._end(child.number, result)

    def _explain(self, child: Child) -> dict[str, Any] | None:
        """The result of a process that has stored none; None when another one is at work on the run."""
        plan, folder = child.cell.plan, child.cell.folder
        if child.timed_out:
            message = f"stopped after the time limit of {self._limit:g} seconds"
            return record_failure(plan, folder, TIME_OUT, message, limit=self._limit)
        if child.was_killed() and (self._kills.explain_one() or child.held_nearly_all_memory()):
            return record_failure(plan, folder, "out-of-memory", "the system ended the process for want of memory")
        ending = child.ending()
        if ending.reason == Busy.status:
            # Its result will serve.
            return None
        if ending.reason == RequestError.status:
            # That speaks of this machine or this folder as they are now, and is not stored.
            return failed(plan, {}, ending.reason, ending.message)
        return record_failure(plan, folder, ending.reason, ending.message)

    def _put_off(self, number: int, circumstance: Circumstance) -> None:
        """Count what circumstance has ended, and try it again later or give it up."""
        cell, stopped = self._grid[number], self._stopped[number]
        stopped.append(circumstance.reason)
        if len(attempts(cell.folder)) == self._before[number][1]:
            # The process could not count it itself.
            record_attempt(cell.folder, circumstance)
        if len(stopped) <= len(_PAUSES):
            until = time.monotonic() + _PAUSES[len(stopped) - 1]
            self._pauses[number] = _Pause(until, circumstance.reason in _SHARED)
            self._waiting.append(number)
            self._display.put_off(number, cell, circumstance)
        else:
            counted = attempts(cell.folder)
            reasons = counted if len(counted) > len(stopped) else stopped
            self._end(number, unfinished(cell.plan, circumstance, reasons))

    def _end(self, number: int, result: dict[str, Any]) -> None:
        self._results[number] = result
        self._display.finished(number, self._grid[number], result)

    def _stop(self) -> None:
        # A terminal's Ctrl-C reaches the children too; a signal to this process alone is passed on.
        for child in self._children:
            child.ask_to_stop()
        for child in self._children:
            child.close()
        self._processes.close()


def _stored(cell: GridRun) -> dict[str, Any] | None:
    return cell.folder.finished_result(cell.plan.run_hash)


def _arguments(cell: GridRun, runs: Path, retry_failed: bool) -> list[str]:
    arguments = ["run", "--json", "--runs", str(runs), *cell.request.arguments()]
    return [*arguments, "--retry-failed"] if retry_failed else arguments
