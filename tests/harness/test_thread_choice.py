"""Threads and what else of the CPU is a choice: shared out, set, recorded, and told where a run goes on with others."""

import json

import pytest
import torch
from command_line import TOY, Bench

from seqbench.comparing.scheduler import places
from seqbench.environment import bf16_in_hardware, describe_environment, use_threads
from seqbench.running.rounding import rounding_differences


def threads_of(bench: Bench, folder: str) -> int:
    return json.loads((bench.folder / folder / "environment.json").read_text())["threads"]


def test_a_run_computes_with_the_threads_that_were_asked_for_and_says_how_many(bench: Bench) -> None:
    assert bench("run", *TOY, "--threads", "3", "--output", "three").code == 0
    assert threads_of(bench, "three") == 3
    again = bench("run", *TOY, "--threads", "2", "--output", "three")
    assert "the stored result was made with 3 threads instead of 2" in again.err
    assert threads_of(bench, "three") == 3


def test_a_run_that_goes_on_with_other_threads_says_so(bench: Bench) -> None:
    command = ("run", *TOY, "--output", "moved")
    assert bench(*command, "--threads", "2", TOY_SIGNAL="SIGKILL@train:9").code != 0
    continued = bench(*command, "--threads", "1")
    assert "continues from step 8; threads 2, now 1" in continued.err
    assert bench.result("moved")["continued"] == [{"step": 8, "differences": ["threads 2, now 1"]}]


def test_a_run_that_goes_on_as_it_was_begun_says_nothing(bench: Bench) -> None:
    command = ("run", *TOY, "--output", "stayed")
    assert bench(*command, TOY_SIGNAL="SIGKILL@train:9").code != 0
    assert bench(*command).code == 0
    assert "continued" not in bench.result("stayed")


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_a_number_of_threads_that_cannot_be_is_refused(bench: Bench, count: str) -> None:
    assert bench("run", *TOY, "--threads", count).code == 2


def shares(monkeypatch: pytest.MonkeyPatch, cores: int, **asked: object) -> list[str | None]:
    monkeypatch.setenv("OMP_NUM_THREADS", f"{cores}")
    defaults = {"jobs": None, "device": "cpu", "budget_kind": None, "threads": None}
    return [place.environment.get("OMP_NUM_THREADS") for place in places(**{**defaults, **asked})]


def test_runs_side_by_side_have_the_threads_that_were_asked_for_and_the_cores_suffice(monkeypatch) -> None:
    assert shares(monkeypatch, 8) == ["1"] * 8
    assert shares(monkeypatch, 8, jobs=2) == ["4"] * 2
    assert shares(monkeypatch, 8, threads=3) == ["3"] * 2
    assert shares(monkeypatch, 2, threads=4) == ["4"]
    assert shares(monkeypatch, 8, threads=4, jobs=3) == ["4"] * 3
    assert shares(monkeypatch, 8, threads=2, budget_kind="seconds") == ["2"]
    assert shares(monkeypatch, 8, jobs=1) == [None]


def test_no_number_of_threads_leaves_them_as_they_are() -> None:
    use_threads(None)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("capabilities", "known"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True, "amx_bf16": False}, False), ({}, None)],
)
def test_the_environment_says_whether_the_processor_multiplies_bfloat16(monkeypatch, capabilities, known) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert bf16_in_hardware(torch.device("cpu")) is known
    assert describe_environment(torch.device("cpu"))["bf16_in_hardware"] is known


def test_a_torch_that_cannot_tell_leaves_it_open(monkeypatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert bf16_in_hardware(torch.device("cpu")) is None


def test_environments_differ_where_rounding_does() -> None:
    here = describe_environment(torch.device("cpu"))
    # From before requests for kernels were recorded.
    old = {key: value for key, value in here.items() if key != "kernels"}
    assert rounding_differences(old, here) == []
    other = {**here, "kernels": "reference", "threads": 9, "packages": {**here["packages"], "torch": "1.0"}}
    assert rounding_differences(other, here) == [
        f"threads 9, now {here['threads']}",
        "kernels reference, now by default",
        f"torch 1.0, now {here['packages']['torch']}",
    ]
