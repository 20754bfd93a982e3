"""Toy plugins on the path, and the command line as a user runs it: in processes of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

SUPPORT = Path(__file__).parent / "support"
sys.path.insert(0, str(SUPPORT))

TOY = ("--model", "toy_model:Averager", "--task", "toy_task:Recall")


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


class Bench:
    """`bench` in a working directory of its own, with the toy plugins importable."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str, **environment: str) -> Finished:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=300)
        return Finished(process.returncode, out, err)

    def start(self, *arguments: str, preexec: Any = None, **environment: str) -> subprocess.Popen[str]:
        paths = [environment.pop("PYTHONPATH", ""), str(SUPPORT)]
        variables = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            **environment,
        }
        return subprocess.Popen(
            [sys.executable, "-m", "seqbench.cli", *map(str, arguments)],
            cwd=self.folder,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=preexec,
        )

    def result(self, folder: str) -> Any:
        """result.json of a run."""
        return json.loads((self.folder / folder / "result.json").read_text())

    def log(self, folder: str) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return [json.loads(line) for line in (self.folder / folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One working directory a test module, so that tests can share its runs."""
    return Bench(tmp_path_factory.mktemp("work"))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tiny models: a second thread costs more than it brings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


