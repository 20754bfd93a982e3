"""The command line as a user runs it: in processes of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SUPPORT = Path(__file__).parent

TOY = ("--model", "toy_model:Neighbour", "--task", "toy_task:Recall")


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON document and nothing else."""
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@dataclass(frozen=True)
class Bench:
    """`bench` in a working directory of its own, with the toy plugins importable.

    Calling it forks a process that has imported torch already; `start` and `fresh` start the interpreter.
    """

    folder: Path
    server: "subprocess.Popen[str]"

    def __call__(self, *arguments: str, **environment: str) -> Finished:
        assert self.server.stdin is not None and self.server.stdout is not None
        command = {"folder": str(self.folder), "arguments": list(map(str, arguments)), "environment": environment}
        self.server.stdin.write(json.dumps(command) + "\n")
        self.server.stdin.flush()
        return Finished(*json.loads(self.server.stdout.readline()))

    def start(self, *arguments: str, stdin: int = subprocess.PIPE, **environment: str) -> "subprocess.Popen[str]":
        """A process that has just been started."""
        return python("-m", "seqbench.cli", *arguments, folder=self.folder, stdin=stdin, **environment)

    def fresh(self, *arguments: str, **environment: str) -> Finished:
        """As it is called, in a process started for it."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=300)
        return Finished(process.returncode, out, err)

    def result(self, folder: str) -> Any:
        """result.json of a run."""
        return json.loads((self.folder / folder / "result.json").read_text())

    def log(self, folder: str) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return [json.loads(line) for line in (self.folder / folder / "metrics.jsonl").read_text().splitlines()]


def python(
    *arguments: str, folder: Path | None = None, stdin: int = subprocess.PIPE, **environment: str
) -> "subprocess.Popen[str]":
    """An interpreter with one thread, no GPU and the toy plugins."""
    paths = [environment.pop("PYTHONPATH", ""), str(SUPPORT), os.environ.get("PYTHONPATH", "")]
    variables = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        **environment,
    }
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, env=variables, stdin=stdin, stdout=pipe, stderr=pipe, text=True
    )
