"""Ablations on the command line: while training, at evaluation alone, and all of them in one table."""

import json

import pytest
from command_line import TOY, Bench
from safetensors.torch import load_file

RUN = ("run", *TOY)


def folders(bench, store):
    return {path.name.rsplit("-", 1)[0]: path for path in (bench.folder / store / "toy_task-Recall").iterdir()}


def test_an_ablation_at_evaluation_tests_the_model_that_was_trained_whole(bench: Bench) -> None:
    whole = bench(*RUN, "--json", "--runs", "whole").json
    changed = bench(*RUN, "--json", "--runs", "eval", "--ablate", "no-dropout@eval").json
    assert changed["model"]["ablation"] == "no-dropout@eval"
    assert changed["model"]["config"]["dropout"] == 0.0
    # Dropout does nothing at evaluation: trained alike, it must measure alike.
    assert changed["measurements"] == whole["measurements"]
    assert changed["data_order_sha256"] == whole["data_order_sha256"]
    made = folders(bench, "eval")
    assert changed["trained_in"] == f"toy_task-Recall/{made['toy_model-Neighbour'].name}"


def test_training_without_the_part_gives_another_model(bench: Bench) -> None:
    bench(*RUN, "--runs", "trained")
    bench(*RUN, "--runs", "trained", "--ablate", "no-dropout")
    whole, ablated = (
        load_file(folders(bench, "trained")[name] / "model" / "model.safetensors")
        for name in ("toy_model-Neighbour", "toy_model-Neighbour-no-dropout")
    )
    assert any(not ablated[name].equal(whole[name]) for name in whole)


@pytest.mark.slow
def test_the_model_that_was_trained_before_is_not_trained_again(bench: Bench) -> None:
    bench(*RUN, "--runs", "once")
    trained = bench(*RUN, "--runs", "once", "--ablate", "no-dropout@eval")
    assert trained.code == 0
    assert "step 12/12" not in trained.err


@pytest.mark.slow
def test_an_ablation_changes_what_is_measured(bench: Bench) -> None:
    """The toy's ablation "deaf" silences its hidden layer, at evaluation only; here it has learnt to need it."""
    table = ("--runs", "table", "--set", "learning_rate=0.1", "--ablations", "no-dropout@eval,deaf")
    results = bench(*RUN, "--json", *table).json["results"]
    whole, same, deaf = ([m["value"] for m in result["measurements"]] for result in results)
    assert same == whole != deaf
    assert [result["model"]["ablation"] for result in results] == [None, "no-dropout@eval", "deaf@eval"]


@pytest.mark.slow
def test_all_ablations_make_one_table_and_a_second_call_does_nothing(bench: Bench) -> None:
    first = bench(*RUN, "--runs", "all", "--ablations", "all")
    assert first.code == 0
    for name in ("toy_model:Neighbour", "no-dropout", "no-dropout@eval", "deaf@eval"):
        assert any(line.split()[:1] == [name] for line in first.out.splitlines()), name
    again = bench(*RUN, "--runs", "all", "--ablations", "all")
    assert again.out == first.out
    assert again.err.count("done before") == 4
    [table] = (bench.folder / "all" / "toy_task-Recall").glob("ablations-*")
    stored = {"comparison.json", "table.txt", "table.md", "results.csv", "plot.png"}
    assert stored <= {path.name for path in table.iterdir()}


@pytest.mark.slow
def test_a_change_has_its_interval_over_the_test_items(bench: Bench) -> None:
    """Trained alike and tested alike, the ablation without dropout differs in no item."""
    finished = bench(*RUN, "--runs", "all", "--ablations", "all")
    [line] = [line for line in finished.out.splitlines() if line.split()[:1] == ["no-dropout@eval"]]
    assert "+0.0000 [+0.0000, +0.0000]" in line
    [markdown] = (bench.folder / "all" / "toy_task-Recall").glob("ablations-*/table.md")
    assert "+0.0000 [+0.0000, +0.0000]" in markdown.read_text()


def test_a_failed_training_fails_what_would_have_tested_its_model(bench: Bench) -> None:
    broken = ("run", "--model", "toy_model:RaisesInForward", "--task", TOY[3], "--runs", "broken")
    finished = bench(*broken, "--json", "--ablations", "no-dropout@eval")
    assert finished.code == 1
    assert [result["failure"]["reason"] for result in finished.json["results"]] == ["error", "training-failed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ablate", "no-dropuot"), "did you mean no-dropout"),
        (("--ablate", "no-dropuot@eval"), "its ablations are: no-dropout, no-dropout@eval, deaf@eval"),
        (("--ablations", "all", "--ablate", "deaf"), "leave one of them out"),
        (("--ablations", ","), "takes names separated by commas"),
        (("--ablations", "deaf,deaf@eval"), "more than once"),
        (("--ablations", "deaf,blind"), "no ablation 'blind'"),
    ],
)
def test_what_cannot_be_taken_away_is_refused(bench: Bench, arguments: tuple[str, ...], message: str) -> None:
    finished = bench(*RUN, *arguments)
    assert finished.code == 2
    assert message in finished.err


def test_an_ablation_that_must_be_trained_is_not_applied_at_evaluation(bench: Bench) -> None:
    finished = bench("run", "--model", "toy_model:Narrow", "--task", TOY[3], "--ablate", "narrow@eval")
    assert finished.code == 2
    assert "cannot be applied at evaluation alone; type --ablate narrow" in finished.err


def test_a_dry_run_lists_the_runs_of_the_table(bench: Bench) -> None:
    finished = bench(*RUN, "--ablations", "all", "--dry-run", "--runs", "dry")
    assert finished.code == 0
    assert finished.out.count("seed 0") == 4
    assert not (bench.folder / "dry").exists()


def test_the_run_records_what_was_trained_and_what_was_tested(bench: Bench) -> None:
    bench(*RUN, "--runs", "recorded", "--ablate", "no-dropout@eval")
    run = json.loads((folders(bench, "recorded")["toy_model-Neighbour-no-dropout-eval"] / "run.json").read_text())
    assert run["identity"]["model"]["config"]["dropout"] == 0.1
    assert run["identity"]["model"]["tested_config"]["dropout"] == 0.0
