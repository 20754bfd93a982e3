"""`bench` commands in processes that are forked from this one, which has paid for importing torch.

The runs of a comparison are forked too, where the command itself would start an interpreter for each. Everything else
is as it is: real signals, real limits, real files.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

SUPPORT = Path(__file__).parents[1] / "harness" / "support"
sys.path.insert(0, str(SUPPORT))

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200", "MPLBACKEND": "agg"}
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import torch  # noqa: E402
import toy_model  # noqa: E402, F401
import toy_task  # noqa: E402, F401

from seqbench.cli import app, compare, grid, listing, main, run, show  # noqa: E402, F401
from seqbench.comparing import scheduler  # noqa: E402
from seqbench.report import plot, run_plots, table, training_figure  # noqa: E402, F401
from seqbench.running import preview, runner  # noqa: E402, F401
from seqbench.surroundings import stopping  # noqa: E402

torch.set_num_threads(1)

# Fields that differ from command to command; every other byte is the same however often a run was stopped.
# The commit has "+changes" when somebody edits the tree meanwhile.
CLOCKS = ("seconds", "wall_seconds", "finished", "commit")
# Not longer than any command of a campaign takes, however busy the machine.
_PATIENCE_SECONDS = 300.0


class _Processes:
    """The runs of a comparison: what their commands would do, without a server that has to import torch first."""

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str], stderr: IO[bytes] | None
    ) -> "subprocess.Popen[bytes]":
        variables = {**os.environ, **environment}
        return subprocess.Popen(
            ["bench"],
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
            preexec_fn=lambda: _become(arguments, variables),
        )


def _become(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    # The parent's Popen waits for one of these to close.
    os.closerange(3, 256)
    # As exec leaves them.
    for number in stopping.SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    _leave_with(arguments)


def _leave_with(arguments: Sequence[str]) -> None:
    """Carry out a command and end the process with its exit code."""
    sys.argv = ["bench", *arguments]
    code = 0
    try:
        main()
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 70
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


@dataclass
class Command:
    """A command at work, in a process group of its own.

    Args:
        folder: where it is typed; what it says goes to the files out and err beside that folder.
        arguments: after `bench`.
        limits: of the process and its children, by the number of the resource.
    """

    folder: Path
    arguments: Sequence[str]
    limits: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._said = [self.folder.with_name(f"{self.folder.name}.{name}") for name in ("out", "err")]
        # Opened before the limits hold: what is said must not be lost with what is stored.
        files = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for path in self._said]
        self.process = os.fork()
        if self.process == 0:
            self._begin(files)
        for file in files:
            os.close(file)

    def _begin(self, files: Sequence[int]) -> None:
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for number, file in enumerate(files, 1):
                os.dup2(file, number)
                os.close(file)
            os.chdir(self.folder)
            scheduler.BenchProcesses = _Processes  # type: ignore[attr-defined, misc, assignment]
            for number, limit in self.limits.items():
                resource.setrlimit(number, (limit, resource.getrlimit(number)[1]))
            _leave_with(self.arguments)
        finally:
            os._exit(71)

    def send(self, number: int, to_group: bool) -> None:
        """A signal to the command, or to everything that it has started too."""
        with suppress(ProcessLookupError):
            os.killpg(self.process, number) if to_group else os.kill(self.process, number)

    def wait(self) -> int:
        """Its exit code, negative for a signal."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            found, status = os.waitpid(self.process, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.killpg(self.process, signal.SIGKILL)
                os.waitpid(self.process, 0)
                raise TimeoutError(f"{' '.join(self.arguments)} takes more than {_PATIENCE_SECONDS:g} s")
            time.sleep(0.01)

    def said(self) -> str:
        """All that it has said so far."""
        return "".join(path.read_text(errors="replace") for path in self._said)


def contents(store: Path) -> dict[str, Any]:
    """Everything that a command has left in a folder, in a form that does not depend on how often it was stopped."""
    return {
        str(path.relative_to(store)): _content(path)
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name != ".lock" and "logs" not in path.relative_to(store).parts
    }


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The files that are there in one of two folders alone, or are not the same."""
    names = sorted({*expected, *found})
    return [
        f"{name}: {'missing' if name not in found else 'surplus' if name not in expected else 'differs'}"
        for name in names
        if expected.get(name) != found.get(name)
    ]


def _content(path: Path) -> Any:
    if path.name == "metrics.jsonl":
        return _log(path)
    if path.name == "checks.jsonl":
        # A line that a kill has cut off counts for nothing.
        return sorted(line for line in path.read_text().splitlines() if line.endswith("}"))
    if path.name == "comparison.json":
        # Its checksum covers clocks.
        return {**_without_clocks(json.loads(path.read_text())), "sha256": ""}
    if path.name == "environment.json":
        # Its checksum covers the commit.
        return {**_without_clocks(json.loads(path.read_text())), "sha256": ""}
    if path.name == "result.json":
        return _without_clocks(json.loads(path.read_text()))
    if path.suffix in (".png", ".svg"):
        # Times of training are drawn nowhere; but the lines of a log that was cut in two are.
        return path.read_bytes()[-12:]
    if path.name in ("table.txt", "table.md", "results.csv"):
        return [line for line in path.read_text().splitlines() if "time" not in line and "," not in line]
    if path.name == "SHA256SUMS":
        # Those of result, log, environment and of a checkpoint's state cover clocks.
        lines = path.read_text().splitlines()
        return [line for line in lines if not line.endswith((".json", "metrics.jsonl"))]
    if path.name == "state.json":
        state = json.loads(path.read_text())
        return {**state, "state": _without_clocks(state["state"])}
    return path.read_bytes()


def _log(path: Path) -> dict[str, Any]:
    """What the log says of each step and each evaluation: a stop may cut a line in two, and no number of it."""
    steps: dict[int, tuple[float, float]] = {}
    other = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if row["kind"] == "train":
            first = row["step"] - len(row["losses"]) + 1
            for step, *numbers in zip(range(first, row["step"] + 1), row["losses"], row["gradient_norms"], strict=True):
                assert step not in steps, f"step {step} stands twice in {path}"
                steps[step] = tuple(numbers)
        elif row["kind"] != "kernels":
            other.append(_without_clocks(row))
    return {"steps": steps, "other": other}


def _without_clocks(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_clocks(value) for key, value in content.items() if key not in CLOCKS}
    if isinstance(content, list):
        return [_without_clocks(value) for value in content]
    return content
