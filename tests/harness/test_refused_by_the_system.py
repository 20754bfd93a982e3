"""Whatever asks the system for something before or during a run: a refusal is circumstance and leaves no result."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_diagnostics import Telling

from seqbench import environment
from seqbench.comparing.grid import grid_run
from seqbench.errors import Circumstance
from seqbench.planning.request import RunRequest
from seqbench.plugins import checkpoint_files
from seqbench.running.runner import execute
from seqbench.soundness import gate
from seqbench.testing.report import ClauseFailure

NO_HANDLE = OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def refused(*arguments: Any, **options: Any) -> Any:
    raise NO_HANDLE


def refused_in_other_words(*arguments: Any, **options: Any) -> Any:
    raise RuntimeError(f"unable to open file <model.safetensors> in read-only mode: {os.strerror(errno.EMFILE)} (24)")


def refused_in_a_clause(*arguments: Any) -> None:
    try:
        refused()
    except OSError as error:
        raise ClauseFailure("the call raises OSError", "look at forward") from error


REFUSALS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "opening what was saved": lambda patch: patch.setattr(checkpoint_files, "safe_open", refused_in_other_words),
    "a clause of the examination": lambda patch: patch.setitem(gate.CLAUSES, "causal", refused),
    "a clause that explains it": lambda patch: patch.setitem(gate.CLAUSES, "causal", refused_in_a_clause),
    "a clause after training": lambda patch: patch.setitem(gate.TRAINED_CLAUSES, "causal", refused),
    "the plugin's diagnostics": lambda patch: patch.setattr(Telling, "diagnose", refused),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_leaves_no_result_and_the_same_command_goes_on(refusal: str, tmp_path: Path) -> None:
    request = RunRequest("toy_diagnostics:Telling", "toy_task:Recall", changes={"steps": "3"}, device="cpu", threads=1)
    cell = grid_run(request, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        REFUSALS[refusal](patch)
        with pytest.raises(Circumstance, match="no process or file handle"):
            execute(cell.plan, cell.folder, tmp_path)
    assert cell.folder.read_result() is None
    assert execute(cell.plan, cell.folder, tmp_path)["status"] == "complete"


def test_a_commit_that_could_not_be_asked_for_is_not_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.subprocess, "run", refused)
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        environment._commit.__wrapped__()


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: Any, **options: Any) -> Any:
        raise FileNotFoundError(errno.ENOENT, "git")

    monkeypatch.setattr(environment.subprocess, "run", missing)
    assert environment._commit.__wrapped__() is None
