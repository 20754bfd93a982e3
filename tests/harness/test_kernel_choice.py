"""Paths of kernels: asked for by the user, told beforehand when that cannot be, and recorded as they ran."""

import json
from pathlib import Path

import pytest
from announced_package import announce_package
from command_line import Bench
from stored_results import no_items, result, shown
from toy_kernels import ENTRY_POINTS

from seqbench.report.table import comparison_report

MODEL, TASK = "toy_kernels:Doubling", "toy_task:Recall"
TOY = ("--model", MODEL, "--task", TASK)


@pytest.fixture(scope="module")
def bench(bench: Bench) -> Bench:
    """A working directory in which the toy kernel is announced, as by an installed package."""
    announce_package(bench.folder, "toys", ENTRY_POINTS)
    return bench


@pytest.fixture(scope="module")
def asked(bench: Bench) -> Path:
    """A run that was asked for the reference."""
    assert bench("run", *TOY, "--kernels", "toy_double=reference", "--output", "asked").code == 0
    return bench.folder / "asked"


def environment(folder: Path) -> dict:
    return json.loads((folder / "environment.json").read_text())


def test_the_paths_that_ran_stand_in_the_result_and_in_its_table_in_place_of_what_the_plugin_says(
    bench: Bench, asked: Path
) -> None:
    stored = bench.result("asked")
    assert stored["kernels"] == {"requested": "toy_double=reference", "taken": {"toy_double": ["reference"]}}
    assert environment(asked)["kernels"] == "toy_double=reference"
    free = bench("run", *TOY, "--output", "free")
    assert "kernel path: toy_double by fast" in free.out
    assert bench.result("free")["kernels"] == {"requested": "", "taken": {"toy_double": ["fast"]}}


def test_the_environment_variable_asks_and_the_option_goes_before_it(bench: Bench) -> None:
    for name, option, path in (("by-variable", (), "reference"), ("by-option", ("--kernels", "fast"), "fast")):
        assert bench("run", *TOY, "--output", name, *option, SEQBENCH_KERNELS=" reference ").code == 0
        assert bench.result(name)["kernels"]["taken"] == {"toy_double": [path]}
    assert environment(bench.folder / "by-variable")["kernels"] == "reference"


@pytest.mark.parametrize(
    ("request_text", "told"),
    [
        ("toy_triple=reference", "no operation 'toy_triple'; there are "),
        ("toy_double=slow", "no path 'slow'; toy_double has fast, gpu, reference"),
        ("no_such_path", "no path 'no_such_path'; operations have "),
        ("toy_double=", "is neither a path nor operation=path"),
        ("toy_double=gpu", "the path 'gpu' cannot serve cpu tensors: it computes on a GPU alone"),
        ("toy_gone=reference", "toy_gone is broken: AttributeError: module 'toy_kernels' has no attribute 'NOTHING'"),
    ],
)
def test_a_request_that_cannot_be_followed_is_refused_before_anything_starts(
    bench: Bench, request_text: str, told: str
) -> None:
    refused = bench("run", *TOY, "--device", "cpu", "--kernels", request_text, "--output", "never")
    assert refused.code == 2 and told in refused.err
    assert not (bench.folder / "never").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("run", *TOY, "--dry-run"),
        ("compare", "--models", MODEL, "--task", TASK, "--dry-run"),
        ("check", MODEL),
        ("verify", "asked"),
    ],
    ids=lambda command: command[0],
)
def test_every_command_that_runs_a_model_refuses_it(bench: Bench, asked: Path, command: tuple[str, ...]) -> None:
    refused = bench(*command, "--kernels", "toy_triple=reference")
    assert refused.code == 2 and "no operation 'toy_triple'" in refused.err


def test_a_broken_kernel_is_told_to_whoever_asks_for_paths(bench: Bench) -> None:
    told = bench("run", *TOY, "--kernels", "reference", "--dry-run")
    assert told.code == 0
    assert "kernel toy_gone (toy_kernels:NOTHING) is broken: AttributeError" in told.err


def test_the_same_command_with_other_kernels_shows_the_stored_result_and_says_so(bench: Bench, asked: Path) -> None:
    before = bench.result("asked")
    again = bench("run", *TOY, "--kernels", "fast", "--output", "asked")
    assert again.code == 0
    assert "the stored result was made with --kernels 'toy_double=reference' instead of 'fast'" in again.err
    assert bench.result("asked") == before
    assert "made with" not in bench("run", *TOY, "--kernels", "toy_double=reference", "--output", "asked").err


def test_where_time_is_the_budget_other_kernels_are_another_run(bench: Bench) -> None:
    shown = {kernels: bench("run", *TOY, "--seconds", "5", "--dry-run", *kernels).out for kernels in
             ((), ("--kernels", "fast"), ("--kernels", "reference"), ("--threads", "1"))}  # fmt: skip
    folders = [line for out in shown.values() for line in out.splitlines() if "runs/" in line]
    assert len(set(folders)) == 4


def test_a_run_that_goes_on_with_other_kernels_says_so_in_its_result(bench: Bench) -> None:
    command = ("run", *TOY, "--output", "moved")
    assert bench(*command, "--kernels", "reference", TOY_SIGNAL="SIGKILL@train:9").code != 0
    continued = bench(*command)
    assert "continues from step 8; kernels reference, now by default: not to the bit as in one go" in continued.err
    stored = bench.result("moved")
    assert stored["kernels"] == {"requested": "", "taken": {"toy_double": ["fast", "reference"]}}
    assert stored["continued"] == [{"step": 8, "differences": ["kernels reference, now by default"]}]
    assert "Doubling seed 0 went on at step 8 with kernels reference, now by default" in continued.out


def test_verify_asks_for_the_paths_that_the_run_was_made_with(bench: Bench, asked: Path) -> None:
    verified = bench("verify", "asked", "--json", SEQBENCH_KERNELS="fast")
    assert verified.code == 0, verified.err
    assert verified.json[0]["detail"].startswith("as then")
    other = bench("verify", "asked", "--json", "--kernels", "fast")
    assert other.code == 0, other.out
    assert "kernels toy_double=reference, now fast" in other.json[0]["detail"]
    assert "toy_double reference, now fast" in other.json[0]["detail"]


def test_runs_of_a_comparison_inherit_the_request(bench: Bench) -> None:
    command = ("compare", "--models", MODEL, "--task", TASK, "--seeds", "1", "--jobs", "1", "--threads", "2")
    compared = bench(*command, "--kernels", "reference", "--json", "--runs", "grid")
    assert compared.code == 0, compared.err
    [stored] = compared.json["results"]
    assert stored["kernels"] == {"requested": "reference", "taken": {"toy_double": ["reference"]}}
    [folder] = (bench.folder / "grid").glob("*/*/environment.json")
    assert environment(folder.parent)["threads"] == 2
    other = bench(*command, "--kernels", "fast", "--runs", "grid")
    assert "1 of 1 stored results were made with --kernels 'reference' instead of 'fast'" in other.err


def ran(model: str, seed: int, **taken: str) -> dict:
    words = ", ".join(f"{operation} by {path}" for operation, path in taken.items())
    kernels = {"requested": "", "taken": {operation: [path] for operation, path in taken.items()}}
    return result(model, seed, kernels=kernels, confounds={"kernel path": words})


def test_a_comparison_tells_which_runs_took_another_path_of_the_same_operation() -> None:
    results = [ran("near", 0, scan="fast"), ran("far", 0, scan="fast", other="a"), ran("near", 1, scan="reference")]
    text = " ".join(shown(comparison_report(results, no_items)).split())
    assert "scan ran on different paths, and training times differ by that too: " in text
    assert "fast: near seed 0, far seed 0; reference: near seed 1" in text
    assert "other ran on different paths" not in text
    assert "kernel path: near: scan by fast or scan by reference; far: scan by fast, other by a" in text


def test_single_tokens_done_in_place_make_no_difference_to_training() -> None:
    stepping = ran("near", 0, scan="fast")
    stepping["kernels"]["taken"]["scan"].append("decoding-step")
    assert "different paths" not in shown(comparison_report([stepping, ran("far", 0, scan="fast")], no_items))


def test_a_comparison_whose_runs_took_the_same_paths_tells_nothing_of_it() -> None:
    assert "different paths" not in shown(
        comparison_report([ran("near", 0, scan="a"), ran("far", 0, scan="a")], no_items)
    )
