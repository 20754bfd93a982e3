"""Runs of a grid that circumstance ends: tried again, counted, named after three times, and never a result."""

import errno
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from seqbench.comparing import child, process, scheduler
from seqbench.comparing.grid import GridRun, grid_run
from seqbench.comparing.scheduler import Place, run_grid
from seqbench.comparing.search import Search, parse_axis
from seqbench.errors import Circumstance
from seqbench.evaluating.result import failed
from seqbench.planning.request import RunRequest
from seqbench.report.item_scores import ItemScores, ItemsUnusable
from seqbench.report.results import Result
from seqbench.report.table import comparison_report, failure_line
from seqbench.running.runner import execute
from seqbench.running.standing import standing_result
from seqbench.store.attempts import attempts, record_attempt
from seqbench.store.catalogue import stored_runs
from seqbench.surroundings import memory_pressure, stopping

REQUEST = RunRequest("toy_model:Neighbour", "toy_task:Recall", changes={"steps": "3"}, device="cpu", threads=1)

REFUSALS = {name: OSError(getattr(errno, name), os.strerror(getattr(errno, name))) for name in ("EAGAIN", "ENOMEM")}


class Machine:
    """Stands for the system's processes: each start ends as the next of `endings` says.

    An ending is an error that the system refuses the start with, an exit code (negative for a signal) with what the
    process says, or None for a process that carries out the run.
    """

    def __init__(self, cells: list[GridRun], runs: Path, endings: list[Any]) -> None:
        self.cells, self.runs, self.endings, self.starts = cells, runs, endings, []

    def start(self, arguments: list[str], *options: Any) -> "Machine.Process":
        [cell] = [cell for cell in self.cells if cell.request.arguments() == arguments[arguments.index("--runs") + 2 :]]
        self.starts.append(cell.plan.label)
        ending = self.endings.pop(0) if self.endings else None
        if isinstance(ending, OSError):
            raise ending
        if ending is None:
            execute(cell.plan, cell.folder, self.runs)
            ending = 0
        code, words = ending if isinstance(ending, tuple) else (ending, "")
        return self.Process(code, words)

    class Process:
        pid = 2**22 + 1

        def __init__(self, code: int, words: str) -> None:
            self.returncode = code
            reading, writing = os.pipe()
            os.write(writing, words.encode())
            os.close(writing)
            self.stdout = io.FileIO(reading)

        def poll(self) -> int:
            return self.returncode

        def send_signal(self, number: int) -> None:
            pass


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(scheduler, "_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(scheduler, "_POLL_SECONDS", 0.0)
    yield


@pytest.fixture
def grid(tmp_path: Path) -> list[GridRun]:
    return [grid_run(REQUEST, tmp_path)]


@pytest.fixture
def carried_out(grid: list[GridRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """The result of the only run of a grid whose processes end as given, and how many were started."""

    def carry_out(*endings: Any, limit: float | None = None) -> dict[str, Any]:
        machine = Machine(grid, tmp_path, list(endings))
        monkeypatch.setattr(scheduler, "BenchProcesses", lambda: machine)
        [result] = run_grid(grid, tmp_path, False, [Place({})], tmp_path / "logs", limit)
        return {**result, "starts": len(machine.starts)}

    return carry_out


@pytest.mark.parametrize(
    "ending", [*REFUSALS.values(), -signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP, *stopping.EXIT_CODES]
)
def test_what_circumstance_ends_is_tried_again_by_the_same_command(carried_out: Callable, ending: Any) -> None:
    result = carried_out(ending, ending)
    assert (result["status"], result["starts"]) == ("complete", 3)


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        (REFUSALS["EAGAIN"], "no process or file handle to be had 3 times; will be tried again"),
        (-signal.SIGKILL, "killed from outside 3 times; will be tried again (last: the process was ended by SIGKILL)"),
        (
            (1, '{"status": "unfinished", "reason": "no-room", "detail": "No space", "message": "..."}'),
            "the disk takes nothing more 3 times; will be tried again (last: No space)",
        ),
    ],
)
def test_after_three_times_it_is_named_and_still_no_result(
    carried_out: Callable, grid: list[GridRun], ending: Any, told: str
) -> None:
    result = carried_out(*[ending] * 3)
    assert (result["status"], result["starts"]) == ("unfinished", 3)
    assert told in result["failure"]["message"]
    assert told in failure_line(result)
    assert not (grid[0].folder.path / "result.json").exists()
    assert carried_out()["status"] == "complete"


def test_attempts_are_counted_in_the_folder_over_commands(
    carried_out: Callable, grid: list[GridRun], tmp_path: Path
) -> None:
    cell = grid[0]
    cell.folder.open({"hash": cell.plan.run_hash, "identity": cell.plan.identity}, {})
    record_attempt(cell.folder, Circumstance("no-room", "x"))
    result = carried_out(*[-signal.SIGKILL] * 3)
    told = "the disk takes nothing more once, killed from outside 3 times; will be tried again"
    assert result["failure"]["message"].startswith(told)
    assert attempts(cell.folder) == ["no-room", "killed", "killed", "killed"]
    [listed] = stored_runs(tmp_path)
    assert (listed.state, listed.detail) == ("unfinished", told.partition(";")[0])
    (cell.folder.path / "attempts.jsonl").open("a").write('{"reason": "wea')
    assert len(attempts(cell.folder)) == 4
    carried_out()
    assert not (cell.folder.path / "attempts.jsonl").exists()


@pytest.mark.parametrize(
    ("ending", "reason", "told"),
    [
        (-signal.SIGSEGV, "crash", "ended by SIGSEGV"),
        (-signal.SIGABRT, "crash", "ended by SIGABRT"),
        (-signal.SIGBUS, "crash", "ended by SIGBUS"),
        (-signal.SIGFPE, "crash", "ended by SIGFPE"),
        (3, "error", "exit code 3"),
        ((1, '{"status": "error", "message": "no such thing"}'), "error", "no such thing"),
    ],
)
def test_what_the_run_does_is_a_result(carried_out: Callable, ending: Any, reason: str, told: str) -> None:
    result = carried_out(ending)
    assert (result["status"], result["failure"]["reason"], result["starts"]) == ("failed", reason, 1)
    assert told in result["failure"]["message"]
    assert carried_out()["starts"] == 0


def test_a_kill_that_the_system_counted_is_out_of_memory(
    carried_out: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([5, 5])
    monkeypatch.setattr(memory_pressure, "kills_for_memory", lambda: next(counts, 6))
    assert carried_out(-signal.SIGKILL)["failure"]["reason"] == "out-of-memory"


def test_a_kill_of_a_process_that_held_nearly_all_is_out_of_memory(
    carried_out: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "held_nearly_all", lambda peak, available: True)
    assert carried_out(-signal.SIGKILL)["failure"]["reason"] == "out-of-memory"
    assert carried_out()["starts"] == 0


def test_a_termination_is_not_for_want_of_memory(carried_out: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "held_nearly_all", lambda peak, available: True)
    assert carried_out(-signal.SIGTERM)["status"] == "complete"


def test_a_refusal_speaks_of_now_and_is_not_stored(carried_out: Callable, grid: list[GridRun]) -> None:
    refused = (2, '{"status": "refused", "message": "this run needs about 9 GiB of memory"}')
    assert carried_out(refused)["failure"]["reason"] == "refused"
    assert carried_out()["status"] == "complete"


def stored(cell: GridRun, **failure: Any) -> None:
    """A failure as some version of the harness stores it."""
    cell.folder.open({"hash": cell.plan.run_hash, "identity": cell.plan.identity}, {})
    result = failed(cell.plan, {}, "", "")
    cell.folder.write_result({**result, "failure": {"message": "", **failure}})


@pytest.mark.parametrize(
    "failure",
    [
        {"reason": "disk-full", "message": "[Errno 28] No space left on device: 'x'"},
        {"reason": "killed", "message": "the process was ended by SIGKILL; the system may have run out of memory"},
        {"reason": "killed", "message": "the process was ended by SIGTERM"},
        {"reason": "error", "message": "BlockingIOError: [Errno 11] Resource temporarily unavailable (see x)"},
        {"reason": "error", "message": "OSError: [Errno 5] Input/output error (see traceback.txt)"},
        {"reason": "refused", "message": "this run needs about 2 GiB of memory and 1 GiB are available"},
    ],
)
def test_what_earlier_versions_stored_of_circumstance_is_tried_again(
    grid: list[GridRun], tmp_path: Path, failure: dict[str, str]
) -> None:
    stored(grid[0], **failure)
    assert standing_result(grid[0].plan, grid[0].folder, tmp_path, False) is None


@pytest.mark.parametrize(
    "failure",
    [
        {"reason": "divergence", "message": "the loss is no longer finite at step 28"},
        {"reason": "out-of-memory", "message": "also with one sequence at a time"},
        {"reason": "killed", "message": "the process was ended by SIGSEGV"},
        {"reason": "crash", "message": "the process was ended by SIGBUS"},
        {"reason": "error", "message": "ArithmeticError: the scan does not commute (see traceback.txt)"},
    ],
)
def test_failures_of_the_run_stand_until_they_are_to_be_tried_again(
    grid: list[GridRun], tmp_path: Path, failure: dict[str, str]
) -> None:
    cell = grid[0]
    stored(cell, **failure)
    assert standing_result(cell.plan, cell.folder, tmp_path, False) is not None
    assert standing_result(cell.plan, cell.folder, tmp_path, True) is None


@pytest.mark.parametrize("failure", [{"limit": 20.0}, {"message": "stopped after the time limit of 20 seconds"}])
@pytest.mark.parametrize(("limit", "stands"), [(20.0, True), (10.0, True), (20.5, False), (None, False)])
def test_a_time_limit_is_a_result_under_that_limit(
    grid: list[GridRun], tmp_path: Path, failure: dict[str, Any], limit: float | None, stands: bool
) -> None:
    cell = grid[0]
    stored(cell, reason="time-out", **failure)
    assert (standing_result(cell.plan, cell.folder, tmp_path, False, limit) is not None) == stands


def test_what_waits_for_the_training_of_another_run_follows_it(tmp_path: Path) -> None:
    """Its own failure is only that the other one failed."""
    whole = grid_run(REQUEST, tmp_path)
    ablated = grid_run(RunRequest(**{**vars(REQUEST), "ablation": "deaf@eval"}), tmp_path)
    stored(ablated, reason="training-failed")

    def answer() -> object:
        return standing_result(ablated.plan, ablated.folder, tmp_path, False)

    assert answer() is None
    stored(whole, reason="divergence")
    assert answer() is not None
    stored(whole, reason="disk-full")
    assert answer() is None


def test_an_ablation_whose_training_circumstance_ends_has_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ablated = grid_run(RunRequest(**{**vars(REQUEST), "ablation": "deaf@eval"}), tmp_path)

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("seqbench.training.trainer.save_checkpoint", full)
        with pytest.raises(Circumstance, match="the disk takes nothing more"):
            execute(ablated.plan, ablated.folder, tmp_path)
    assert not list(tmp_path.rglob("result.json"))
    assert execute(ablated.plan, ablated.folder, tmp_path)["status"] == "complete"


def test_a_trial_that_circumstance_ended_has_not_lost() -> None:
    failure = {"reason": "killed", "message": "killed from outside 3 times; will be tried again"}
    search = Search({REQUEST.model: REQUEST}, [parse_axis("optimizer=adamw,muon")], 1.0, False)
    with pytest.raises(Circumstance, match="2 of 2 trials of the search have no result; the first: killed from"):
        search.carry_out(lambda requests: [{"status": "unfinished", "failure": failure} for _ in requests])


def test_a_table_says_that_a_run_is_unfinished_and_not_failed(carried_out: Callable, grid: list[GridRun]) -> None:
    unfinished = carried_out(*[-signal.SIGKILL] * 3)
    complete = carried_out()
    complete["model"] = {**complete["model"], "name": "other"}

    def read_items(result: Result) -> ItemScores:
        raise ItemsUnusable("not asked for")

    document = comparison_report([complete, unfinished], read_items)
    text = document.markdown()
    assert "unfinished" in text
    assert "failed" not in text


class Interpreters:
    """Starts interpreters for lines of code in the place of `bench` commands."""

    def start(self, arguments: list[str], environment: dict[str, str], stderr: Any) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, bufsize=0)


def ended(cell: GridRun, code: str, console: Path) -> child.Child:
    started = child.Child(0, cell, Interpreters(), [code], {}, console)  # type: ignore[arg-type]
    started.close()
    return started


def test_a_process_that_says_much_is_not_held_up(grid: list[GridRun], tmp_path: Path) -> None:
    """More than a pipe holds, which nobody reads before the process has ended."""
    code = "import json; print(json.dumps(dict(status='error', message='x' * 10**6)))"
    ending = ended(grid[0], code, tmp_path / "logs" / "said.txt").ending()
    assert (ending.reason, ending.message) == ("error", "x" * 10**6)


def test_a_process_is_worth_more_than_its_words(grid: list[GridRun], tmp_path: Path) -> None:
    """A disk that takes no file for standard error keeps nobody from starting."""
    (tmp_path / "logs").write_text("no folder")
    ending = ended(grid[0], "raise SystemExit(3)", tmp_path / "logs" / "x.txt").ending()
    assert ending.message == "the process ended with exit code 3 and no result"


def test_a_library_that_leaves_the_process_is_asked_for_its_last_words(grid: list[GridRun], tmp_path: Path) -> None:
    words = "libgomp: Thread creation failed: Resource temporarily unavailable"
    started = ended(grid[0], f"import sys; sys.exit({words!r})", tmp_path / "said.txt")
    with pytest.raises(Circumstance, match="Thread creation failed"):
        started.ending()


def end_of_a_fork(monkeypatch: pytest.MonkeyPatch, code: str, tmp_path: Path) -> int | None:
    """Exit code of a process of the server (which imports nothing for it) that carries out `code`."""
    monkeypatch.setattr(process, "_PRELOADED", [])
    monkeypatch.setattr(process, "_run", exec_code)
    started = process.BenchProcesses().start([code], {}, None)
    while started.poll() is None:
        time.sleep(0.01)
    return started.returncode


def exec_code(arguments: tuple[str, ...], *_: Any) -> None:
    exec(arguments[0], {})


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os; os._exit(255)", 255),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import os, time; os.kill(os.getppid(), 9); time.sleep(0.5)", process.UNKNOWN),
    ],
)
def test_how_a_forked_process_ended_is_known_unless_the_server_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, expected: int
) -> None:
    assert end_of_a_fork(monkeypatch, code, tmp_path) == expected


def test_without_room_for_a_server_there_are_fresh_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(process.BenchProcesses, "_begin", full)
    started = []
    monkeypatch.setattr(process.subprocess, "Popen", lambda command, **options: started.append(command))
    process.BenchProcesses().start(["run"], {}, None)
    assert started == [[sys.executable, "-P", "-m", "seqbench.cli", "run"]]


def test_a_run_whose_server_is_gone_is_tried_again(carried_out: Callable) -> None:
    result = carried_out(process.UNKNOWN)
    assert (result["status"], result["starts"]) == ("complete", 2)
