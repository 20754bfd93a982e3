"""`bench compare`: a grid of runs in processes of their own, and what it survives."""

import csv
import json
import re
import signal
import statistics
import time
import xml.etree.ElementTree as ElementTree

import pytest

GOOD = "toy_model:Neighbour,toy_model:ShortSighted"
TASK = ("--task", "toy_task:Recall")
SHORT = (*TASK, "--set", "steps=6")


@pytest.fixture(scope="module")
def grid(bench):
    """Two models, two seeds; one field is changed for one model alone."""
    one = ("--set", "toy_model:ShortSighted.width=12")
    command = ("compare", "--models", GOOD, *SHORT, *one, "--seeds", "2", "--output", "grid")
    return command, bench(*command)


@pytest.fixture(scope="module")
def comparison(bench, grid):
    return json.loads((bench.folder / "grid" / "comparison.json").read_text())


def test_every_model_runs_with_every_seed(grid, comparison):
    assert grid[1].code == 0, grid[1].err
    cells = [(result["model"]["name"], result["seed"]) for result in comparison["results"]]
    assert sorted(cells) == sorted((model, seed) for model in GOOD.split(",") for seed in (0, 1))
    assert all(result["status"] == "complete" for result in comparison["results"])


@pytest.mark.slow
def test_a_change_for_one_model_leaves_the_other_as_it_is(comparison):
    widths = {result["model"]["name"]: result["model"]["config"]["width"] for result in comparison["results"]}
    assert widths == {"toy_model:Neighbour": 8, "toy_model:ShortSighted": 12}


def test_all_models_of_a_seed_saw_the_same_data(comparison):
    seen = {seed: set() for seed in (0, 1)}
    for result in comparison["results"]:
        seen[result["seed"]].add(result["data_order_sha256"])
    assert [len(hashes) for hashes in seen.values()] == [1, 1]
    assert seen[0] != seen[1]


def test_the_table_has_mean_and_95_percent_interval_over_seeds(grid, comparison):
    """12.706 is Student's t for two seeds."""
    values = [
        result["measurements"][0]["value"]
        for result in comparison["results"]
        if result["model"]["name"] == "toy_model:Neighbour"
    ]
    half = 12.706 * statistics.stdev(values) / 2**0.5
    assert f"{statistics.mean(values):.3f} ± {half:.3f}" in grid[1].out


def test_a_comparison_ends_with_a_verdict_on_each_pair(grid, comparison):
    [line] = [line for line in grid[1].out.splitlines() if "too few seeds" in line]
    assert line.split()[:2] == GOOD.split(",")
    [pair] = comparison["verdicts"]["pairs"]
    assert (pair["first"], pair["second"]) == tuple(GOOD.split(","))
    assert pair["seeds"] == [0, 1]
    overall = {
        (result["model"]["name"], result["seed"]): result["measurements"][-1]["value"]
        for result in comparison["results"]
    }
    first, second = (statistics.mean(overall[model, seed] for seed in (0, 1)) for model in GOOD.split(","))
    assert pair["difference"] == pytest.approx(first - second)


def test_items_are_compared_over_both_seeds(comparison):
    [pair] = comparison["verdicts"]["pairs"]
    assert pair["items"]["items"] == 8
    assert pair["items"]["difference"] == pytest.approx(pair["difference"], abs=1e-6)
    assert comparison["verdicts"]["remarks"] == []


def test_what_lies_beyond_the_reach_is_marked(grid):
    rows = {match[1]: match[0] for match in re.finditer(r"^ +([123]) .*$", grid[1].out, re.MULTILINE)}
    assert [rows[lookback].count("*") for lookback in "123"] == [0, 1, 1]
    assert "beyond the reach" in grid[1].out


def test_tables_and_plots_are_stored(bench, grid, comparison):
    folder = bench.folder / "grid"
    stored = (folder / "table.txt").read_text()
    assert "ShortSighted" in stored
    assert "±" in stored
    assert "| toy_model:Neighbour | toy_model:ShortSighted | too few seeds |" in (folder / "table.md").read_text()
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert len(rows) == sum(len(result["measurements"]) for result in comparison["results"])
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert ElementTree.parse(folder / "plot.svg").getroot().tag.endswith("svg")


def test_what_is_stored_is_not_run_again(grid, bench):
    command, first = grid
    again = bench(*command, TOY_SIGNAL="SIGKILL@train:0")
    assert again.code == 0
    assert again.out == first.out
    assert again.err.count("done before") == 4


def test_json_is_the_content_of_comparison_json_and_nothing_else(grid, bench, comparison):
    assert bench(*grid[0], "--json").json == comparison


def test_a_single_run_and_a_cell_of_a_grid_are_the_same_run(grid, bench, comparison):
    run = bench("run", "--model", "toy_model:Neighbour", *SHORT, "--json", TOY_SIGNAL="SIGKILL@train:0")
    assert run.code == 0
    assert run.json in comparison["results"]


def test_the_output_of_another_comparison_is_not_overwritten(grid, bench, comparison):
    other = bench("compare", "--models", GOOD, *SHORT, "--seeds", "1", "--output", "grid")
    assert other.code == 2
    assert "holds another run or comparison" in other.err
    assert json.loads((bench.folder / "grid" / "comparison.json").read_text()) == comparison


def test_a_dry_run_lists_the_runs_and_makes_nothing(bench):
    before = sorted(bench.folder.rglob("*"))
    planned = bench("compare", "--models", GOOD, *TASK, "--seeds", "2", "--dry-run")
    assert planned.code == 0
    assert len(re.findall(r"^toy_model:\w+ +seed [01]", planned.out, re.MULTILINE)) == 4
    assert sorted(bench.folder.rglob("*")) == before


@pytest.fixture(scope="module")
def mishaps(bench, grid):
    """A grid in which models raise, vanish and diverge; the good one is stored already."""
    models = ",".join(
        f"toy_model:{name}" for name in ("RaisesInForward", "RaisesInBuild", "Crashes", "Dies", "Neighbour")
    )
    command = ("compare", "--models", models, *SHORT, "--seeds", "1", "--output", "mishaps")
    return command, bench(*command)


@pytest.mark.slow
def test_a_grid_survives_models_that_raise_or_are_killed(bench, mishaps):
    finished = mishaps[1]
    assert finished.code == 1
    results = json.loads((bench.folder / "mishaps" / "comparison.json").read_text())["results"]
    outcome = {result["model"]["name"].partition(":")[2]: result for result in results}
    assert outcome["Neighbour"]["status"] == "complete"
    failures = {name: result["failure"] for name, result in outcome.items() if "failure" in result}
    assert {name: (outcome[name]["status"], failure["reason"]) for name, failure in failures.items()} == {
        "RaisesInForward": ("failed", "error"),
        "RaisesInBuild": ("failed", "error"),
        "Crashes": ("failed", "crash"),
        "Dies": ("unfinished", "killed"),
    }
    assert "the scan does not commute" in failures["RaisesInForward"]["message"]
    assert "no such architecture" in failures["RaisesInBuild"]["message"]
    assert "SIGSEGV" in failures["Crashes"]["message"]
    assert (
        failures["Dies"]["message"]
        == "killed from outside 3 times; will be tried again (last: the process was ended by SIGKILL)"
    )


@pytest.mark.slow
def test_a_grid_shows_what_failed_and_why(mishaps):
    out = mishaps[1].out
    assert "Neighbour" in out
    for told in (
        "the scan does not commute",
        "no such architecture",
        "ended by SIGSEGV",
        "killed from outside 3 times",
    ):
        assert told in out
    assert "Traceback" not in out + mishaps[1].err


@pytest.mark.slow
def test_failures_are_results_and_a_kill_from_outside_is_none(bench, mishaps):
    """The model that was killed is alone tried again; what it does now is what counts."""
    again = bench(*mishaps[0], TOY_SPARED="1")
    assert again.code == 1
    assert again.err.count("done before") == 4
    results = json.loads((bench.folder / "mishaps" / "comparison.json").read_text())["results"]
    assert [result["status"] for result in results] == ["failed", "failed", "failed", "complete", "complete"]
    [folder] = bench.folder.glob("runs/*/*Dies*")
    assert not (folder / "attempts.jsonl").exists()


def test_the_traceback_of_a_failure_is_kept_in_its_folder(bench, mishaps):
    [path] = bench.folder.glob("runs/*/*RaisesInForward*/traceback.txt")
    assert "ArithmeticError: the scan does not commute" in path.read_text()


@pytest.mark.slow
def test_models_that_saw_different_data_are_not_compared(bench):
    finished = bench("compare", "--models", GOOD, "--task", "toy_task:OtherData", "--set", "steps=6", "--seeds", "1")
    assert finished.code == 2
    assert "seed 0 saw different training data" in finished.err


@pytest.mark.slow
def test_ctrl_c_stops_a_grid_and_the_same_command_goes_on(bench):
    command = ("compare", "--models", GOOD, *TASK, "--set", "steps=40", "--seeds", "1", "--output", "stopped")
    process = bench.start(*command, TOY_PAUSE="3")
    deadline = time.monotonic() + 200
    while not list(bench.folder.glob("runs/*/*/checkpoints/step-0000000[48]")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "to go on, type: bench compare" in err
    assert "Traceback" not in err
    again = bench(*command)
    assert again.code == 0
    assert "continues from step" in again.err
