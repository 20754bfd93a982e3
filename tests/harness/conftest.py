"""Toy plugins on the path, and the command line in processes of its own."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

SUPPORT = Path(__file__).parent / "support"
sys.path.insert(0, str(SUPPORT))

from command_line import Bench, python  # noqa: E402 (found on the path that was just set)


@pytest.fixture(scope="session")
def server() -> "Iterator[subprocess.Popen[str]]":
    """One process that has paid for importing torch."""
    with python(str(SUPPORT / "forking_bench.py")) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def bench(server: "subprocess.Popen[str]", tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One working directory a test module, so that tests can share its runs."""
    return Bench(tmp_path_factory.mktemp("work"), server)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny models: a second thread costs more than it brings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
