"""Kernels are compiled in the process of the tests; tests marked `interpreted` run in another, which interprets them.

A marked test may be parametrised with values that pickle, and takes no fixtures.
"""

import os
from collections.abc import Iterator

import pytest
from interpreter_process import INTERPRET, InterpreterProcess

from seqbench_kernels.dispatch import ENVIRONMENT_VARIABLE, request_paths

# Also where the whole test run was started with it: the tests that compile need it unset.
os.environ.pop(INTERPRET, None)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "interpreted: runs where Triton interprets its kernels, without a GPU")


@pytest.fixture(autouse=True)
def nothing_asked_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No request for paths reaches a test, from the environment or from the test before."""
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    request_paths(None)
    yield
    request_paths(None)


@pytest.fixture(scope="session")
def interpreter_process() -> Iterator[InterpreterProcess]:
    process = InterpreterProcess()
    yield process
    process.close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if pyfuncitem.get_closest_marker("interpreted") is None:
        return None
    process: InterpreterProcess = pyfuncitem._request.getfixturevalue("interpreter_process")
    parameters = pyfuncitem.callspec.params if hasattr(pyfuncitem, "callspec") else {}
    process.run(pyfuncitem.module.__name__, pyfuncitem.originalname, dict(parameters))
    return True
