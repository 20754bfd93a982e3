"""`bench compare` as a contract: equal sizes and budgets, a plan first, runs side by side, refusals with reasons."""

import json
import re
import shutil
from pathlib import Path

import pytest
from command_line import Bench
from stored_run import edit

PAIR = ("compare", "--models", "toy_model:Neighbour,toy_model:ShortSighted", "--task", "toy_task:Recall")
ONE = (*PAIR, "--seeds", "1", "--jobs", "1")


@pytest.fixture(scope="module")
def matched(bench: Bench):
    """Two models of 500 parameters, two runs at a time."""
    command = (*PAIR, "--seeds", "1", "--params", "500", "--tokens", "300", "--jobs", "2", "--output", "matched")
    return command, bench(*command)


def test_all_models_meet_the_parameters_and_the_tokens(bench: Bench, matched) -> None:
    finished = matched[1]
    assert finished.code == 0, finished.err
    results = json.loads((bench.folder / "matched" / "comparison.json").read_text())["results"]
    assert len(results) == 2
    for result in results:
        budgets = {budget["kind"]: budget for budget in result["budgets"]}
        assert abs(budgets["parameters-non-embedding"]["deviation"]) <= 0.02
        assert budgets["parameters-non-embedding"]["achieved"] == result["parameters_non_embedding"]
        assert budgets["tokens"]["target"] == 300 <= budgets["tokens"]["achieved"] == result["tokens"]


def test_the_plan_comes_first(matched) -> None:
    """On standard error: target, achieved, deviation, width, depth, FLOPs, state; then runs, time and disk."""
    told = matched[1].err
    for heading in ("target", "deviation", "width", "depth", "FLOPs/token", "state KiB", "time per run"):
        assert heading in told
    assert "2 of 2 runs to do; 2 side by side" in told
    assert re.search(r"about \d+:\d\d of training here, .* FLOPs, \d+ MiB of disk", told)
    assert told.index("runs to do") < told.index("[1/2]")


@pytest.mark.slow
def test_runs_side_by_side_give_the_bits_of_runs_one_after_the_other(bench: Bench, matched) -> None:
    command = [*matched[0]]
    command[command.index("--jobs") + 1] = "1"
    command[command.index("--output") + 1] = "one-by-one"
    alone = bench(*command, "--runs", "alone", "--json")
    assert alone.code == 0
    side_by_side = json.loads((bench.folder / "matched" / "comparison.json").read_text())
    assert [result["measurements"] for result in alone.json["results"]] == [
        result["measurements"] for result in side_by_side["results"]
    ]


def test_a_dry_run_prints_the_plan_and_makes_nothing(bench: Bench) -> None:
    finished = bench(*PAIR, "--params", "500", "--search", "lr=1e-3:1e-1:5", "--dry-run", "--runs", "planned")
    assert finished.code == 0, finished.err
    assert "6 of 6 runs to do, after 10 trials of a search" in finished.out
    assert "500" in finished.out and "width" in finished.out
    assert not (bench.folder / "planned").exists()


def test_a_size_that_is_missed_is_refused_or_marked(bench: Bench) -> None:
    """The toy's width has steps of one: near 60 parameters each step is more than 2 %."""
    refused = bench(*ONE, "--params", "77")
    assert refused.code == 2
    assert "type --allow-unmatched" in refused.err
    alone = ("compare", "--models", "toy_model:Neighbour", "--task", "toy_task:Recall", "--seeds", "1", "--jobs", "1")
    allowed = bench(*alone, "--params", "77", "--allow-unmatched", "--runs", "unmatched")
    assert allowed.code == 0, allowed.err
    assert "unmatched" in allowed.out


@pytest.mark.slow
def test_a_run_that_takes_too_long_is_a_result_and_can_go_on(bench: Bench) -> None:
    slow = ("compare", "--models", "toy_model:Neighbour", "--task", "toy_task:Recall", "--seeds", "1", "--jobs", "1")
    slow += ("--runs", "slow", "--set", "checkpoint_interval=2", "--time-limit")
    finished = bench(*slow, "20", "--json", TOY_PAUSE="600")
    assert finished.code == 1
    assert finished.json["results"][0]["failure"]["reason"] == "time-out"
    kept = bench(*slow, "20", "--json", TOY_PAUSE="600")
    assert kept.json == finished.json
    again = bench(*slow, "100", "--json")
    assert again.code == 0
    assert again.json["results"][0]["status"] == "complete"


@pytest.fixture
def stored(bench: Bench, matched, tmp_path: Path) -> Path:
    """A copy of the store of the small comparison, to be changed by hand."""
    return Path(shutil.copytree(bench.folder / "runs", tmp_path / "store"))


def refusal(bench: Bench, matched, store: Path) -> str:
    command = list(matched[0])
    command[command.index("--output") + 1] = str(store / "output")
    refused = bench(*command, "--runs", str(store))
    assert refused.code == 2, refused.err
    return refused.err


def a_run(store: Path) -> Path:
    return min(path.parent for path in store.glob("*/*/run.json"))


def test_runs_that_saw_other_data_are_not_compared(bench: Bench, matched, stored: Path) -> None:
    edit(a_run(stored) / "result.json", data_order_sha256="0" * 64)
    assert "saw different training data" in refusal(bench, matched, stored)


def test_runs_of_another_precision_are_not_compared(bench: Bench, matched, stored: Path) -> None:
    edit(a_run(stored) / "result.json", precision="bf16")
    assert "the precision is" in refusal(bench, matched, stored)


@pytest.mark.slow
def test_times_of_different_machines_are_not_compared(bench: Bench, tmp_path: Path) -> None:
    timed = (*ONE, "--seconds", "0.05", "--runs", str(tmp_path))
    assert bench(*timed).code == 0
    edit(a_run(tmp_path) / "environment.json", device_name="another processor")
    refused = bench(*timed)
    assert refused.code == 2
    assert "device_name (the budget is time) is" in refused.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tokens", "1k", "--flops", "1e9"), "give one of --tokens and --flops"),
        (("--params", "1k", "--params-total", "1k"), "--params or --params-total, not both"),
        (("--params", "many"), "is no finite number; it must be from 1 to"),
        (("--params", "0"), "is out of range; it must be from 1 to"),
        (("--tokens", "1.5"), "must be a whole number"),
        (("--search", "lr=1"), "at least two different values"),
        (("--search", "speed=1:2:3"), "the trainer has no field 'speed'"),
    ],
)
def test_budgets_and_searches_that_make_no_sense_are_refused(
    bench: Bench, arguments: tuple[str, ...], message: str
) -> None:
    finished = bench(*ONE, *arguments)
    assert finished.code == 2
    assert message in finished.err


@pytest.mark.slow
def test_a_search_is_recorded_with_its_cost_and_decides_the_final_runs(bench: Bench) -> None:
    """Of the whole models, and of what is left of the first one without a part."""
    command = (*ONE, "--ablate", "toy_model:Neighbour=no-dropout", "--runs", "searched", "--json")
    search = ("--search", "lr=1e-3,1e-1", "--trial-share", "0.5")
    finished = bench(*command, *search)
    assert finished.code == 0, finished.err
    chosen = {choice["model"]: dict(choice["point"])["learning_rate"] for choice in finished.json["search"]}
    assert list(chosen) == ["toy_model:Neighbour", "toy_model:ShortSighted"]
    for choice in finished.json["search"]:
        assert [trial["share"] for trial in choice["trials"]] == [0.5, 0.5]
        assert all(trial["tokens"] > 0 for trial in choice["trials"])
    ablations = [result["model"]["ablation"] for result in finished.json["results"]]
    assert ablations == [None, "no-dropout", None]
    for result in finished.json["results"]:
        run = next((bench.folder / "searched").glob(f"*/*-{result['hash'][:8]}/run.json"))
        used = json.loads(run.read_text())["identity"]["trainer"]["learning_rate"]
        assert used == float(chosen[result["model"]["name"]])
    assert "chosen of 2 trials" in finished.err
    again = bench(*command, *search, TOY_SIGNAL="SIGKILL@train:0")
    assert again.json == finished.json
    assert "nothing to do, all is stored: 3 runs and 4 trials of the search" in again.err
