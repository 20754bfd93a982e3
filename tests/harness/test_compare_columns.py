"""`bench compare --ablate` and `--init`: a model without one of its parts beside the whole one, and stored weights."""

import dataclasses
import json
from pathlib import Path

import pytest
from command_line import Bench
from stored_grid import store_grid, store_trials
from stored_results import no_items, result, shown, sized

from seqbench.comparing.grid import columns, plan_grid
from seqbench.comparing.search import Search, parse_axis
from seqbench.errors import RequestError
from seqbench.planning.request import RunRequest
from seqbench.report.measurements_csv import results_csv
from seqbench.report.results import parameter_budget
from seqbench.report.table import comparison_report

WHOLE, OTHER = "toy_model:Neighbour", "toy_model:ShortSighted"
TASK = "toy_task:Recall"
COMMAND = ("compare", "--models", f"{WHOLE},{OTHER}", "--task", TASK, "--jobs", "1")
REQUEST = RunRequest("", TASK)


def test_what_is_left_of_a_model_comes_behind_it_with_the_same_seeds(tmp_path: Path) -> None:
    requests = columns(REQUEST, [WHOLE, OTHER], [(WHOLE, "no-dropout"), (WHOLE, "deaf@eval")])
    cells = [(cell.plan.label, cell.plan.seed) for cell in plan_grid(requests, 2, tmp_path)]
    labels = [WHOLE, f"{WHOLE} (no-dropout)", f"{WHOLE} (deaf@eval)", OTHER]
    assert cells == [(label, seed) for seed in (0, 1) for label in labels]


def test_a_checkpoint_and_changes_of_a_model_are_also_those_of_what_is_left_of_it() -> None:
    request = dataclasses.replace(REQUEST, changes={f"{WHOLE}.width": "12", "steps": "5"})
    requests = columns(request, [WHOLE, OTHER], [(WHOLE, "no-dropout")], {WHOLE: "weights"})
    assert [request.init for request in requests] == ["weights", "weights", None]
    assert [dict(request.changes) for request in requests] == [
        {"model.width": "12", "steps": "5"},
        {"model.width": "12", "steps": "5"},
        {"steps": "5"},
    ]


def test_what_a_search_found_for_a_model_holds_for_what_is_left_of_it(tmp_path: Path) -> None:
    requests = columns(REQUEST, [WHOLE, OTHER], [(WHOLE, "no-dropout")])
    found = {WHOLE: {"learning_rate": "0.5"}, OTHER: {"learning_rate": "0.25"}}
    assert [cell.plan.trainer.learning_rate for cell in plan_grid(requests, 1, tmp_path, found)] == [0.5, 0.5, 0.25]


def test_an_ablation_that_is_asked_for_twice_is_refused(tmp_path: Path) -> None:
    requests = columns(REQUEST, [WHOLE], [(WHOLE, "deaf"), (WHOLE, "deaf@eval")])
    with pytest.raises(RequestError, match=r"--ablate asks for toy_model:Neighbour \(deaf@eval\) more than once"):
        plan_grid(requests, 1, tmp_path)


@pytest.fixture(scope="module")
def compared(bench: Bench, tmp_path_factory: pytest.TempPathFactory):
    """A finished comparison of a model, two ablations of it and another model, with one seed."""
    runs = tmp_path_factory.mktemp("ablated")
    store_grid(columns(REQUEST, [WHOLE, OTHER], [(WHOLE, "no-dropout"), (WHOLE, "deaf")]), 1, runs)
    ablate = ("--ablate", f"{WHOLE}=no-dropout", "--ablate", f"{WHOLE}=deaf")
    finished = bench(*COMMAND, *ablate, "--seeds", "1", "--runs", str(runs))
    assert finished.code == 0, finished.err
    [folder] = runs.glob("*/comparison-*")
    return finished, json.loads((folder / "comparison.json").read_text())


def test_the_command_takes_the_runs_of_its_columns(compared) -> None:
    assert "nothing to do, all is stored: 4 runs" in compared[0].err
    found = {(run["model"]["name"], run["model"]["ablation"]) for run in compared[1]["results"]}
    assert found == {(WHOLE, None), (WHOLE, "no-dropout"), (WHOLE, "deaf@eval"), (OTHER, None)}


def test_what_is_left_of_a_model_has_verdicts_of_its_own(compared) -> None:
    pairs = {(pair["first"], pair["second"]): pair for pair in compared[1]["verdicts"]["pairs"]}
    assert len(pairs) == 6
    pair = pairs[WHOLE, f"{WHOLE} (no-dropout)"]
    assert pair["seeds"] == [0]
    assert pair["items"] is not None


def test_the_plan_says_whose_point_what_is_left_of_a_model_takes(bench: Bench) -> None:
    ablate = ("--ablate", f"{WHOLE}=no-dropout")
    told = bench(*COMMAND, *ablate, "--search", "lr=1e-3,1e-1", "--seeds", "1", "--dry-run", "--runs", "none").out
    assert f"{WHOLE} (no-dropout) takes the point that is found for {WHOLE}" in told
    assert "3 of 3 runs to do, after 4 trials" in told


def test_parameters_of_what_is_left_are_counted_by_themselves() -> None:
    """Stored beside the result is the size of the whole model, for which the width was chosen."""
    whole = sized(result("near"), 1_000_000, 1_000_000)
    left = {**whole, "model": {"name": "near", "ablation": "no-memory"}, "parameters_non_embedding": 900_000}
    assert parameter_budget(whole)["achieved"] == 1_000_000
    assert parameter_budget(left)["achieved"] == 900_000
    assert parameter_budget(left)["deviation"] == pytest.approx(-0.1)
    text = shown(comparison_report([whole, left], no_items))
    assert "near (no-memory) (unmatched -10.0 %)" in text
    assert "1,000,000 (-10.0 %)" in text
    assert ",900000,-0.1," in results_csv([left])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ablate", f"{WHOLE}"), "--ablate takes MODEL=NAME with one of --models"),
        (("--ablate", f"{WHOLE}="), "--ablate takes MODEL=NAME"),
        (("--ablate", "toy_model:Narrow=narrow"), f"one of --models ({WHOLE}, {OTHER})"),
        (("--ablate", f"{WHOLE}=no-dropuot"), "did you mean no-dropout"),
        (("--ablate", f"{WHOLE}=deaf", "--ablate", f"{WHOLE}=deaf"), "more than once"),
        (("--search", "lr=1e-3,1e-2", "--set", "steps=0"), "trains nothing here; leave --search out"),
        (("--init", "somewhere"), "--init takes MODEL=CHECKPOINT"),
        (("--init", f"{WHOLE}=a", "--init", f"{WHOLE}=b"), "--init names a model twice"),
        (("--init", f"{WHOLE}=/nowhere/at/all"), "/nowhere/at/all"),
    ],
)
def test_what_names_no_compared_model_or_nothing_of_it_is_refused(
    bench: Bench, arguments: tuple[str, ...], message: str
) -> None:
    finished = bench(*COMMAND, *arguments)
    assert finished.code == 2
    assert message in finished.err


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory):
    """A text, and a folder with a model that was trained on it."""
    folder = tmp_path_factory.mktemp("reading")
    (folder / "text.txt").write_text("a text to read\nand to read again\n" * 4)
    changes = {"task.data": str(folder / "text.txt")}
    requests = [RunRequest(model, "toy_text:Reading", changes=changes) for model in (WHOLE, OTHER)]
    store_trials(requests, folder / "trained")
    paths = {path.name.rsplit("-", 1)[0]: path for path in (folder / "trained").glob("*/*")}
    return folder, {model: paths[model.replace(":", "-")] for model in (WHOLE, OTHER)}


def test_trained_models_are_compared_on_a_task_that_only_measures(bench: Bench, reading) -> None:
    folder, checkpoints = reading
    text = ("--data", str(folder / "text.txt"), "--runs", str(folder / "runs"), "--seeds", "1")
    command = ("compare", "--models", f"{WHOLE},{OTHER}", "--task", "toy_text:Measuring", "--jobs", "2", *text)
    untrained = bench(*command)
    assert untrained.code == 2
    assert "trains nothing here, and model toy_model:Neighbour would have random weights" in untrained.err
    init = [part for model, path in checkpoints.items() for part in ("--init", f"{model}={path}")]
    planned = bench(*command, *init, "--dry-run")
    assert planned.code == 0, planned.err
    assert "2 of 2 runs to do" in planned.out
    assert "cannot be estimated" not in planned.out
    searching = bench(*command, *init, "--search", "lr=1e-3,1e-2")
    assert searching.code == 2
    assert "task toy_text:Measuring trains nothing here; leave --search out" in searching.err
    changes = {"task.data": str(folder / "text.txt")}
    request = RunRequest("", "toy_text:Measuring", changes=changes)
    store_grid(
        columns(request, [WHOLE, OTHER], checkpoints={m: str(p) for m, p in checkpoints.items()}), 1, folder / "runs"
    )
    finished = bench(*command, *init)
    assert finished.code == 0, finished.err
    assert "nothing to do, all is stored: 2 runs" in finished.err
    assert f"{WHOLE}: weights of {checkpoints[WHOLE]}" in finished.out


def test_the_trials_of_a_search_start_from_the_checkpoint_too(reading) -> None:
    folder, checkpoints = reading
    request = RunRequest("", "toy_text:Reading", changes={"task.data": str(folder / "text.txt")})
    [whole] = columns(request, [WHOLE], checkpoints={WHOLE: str(checkpoints[WHOLE])})
    asked: list[RunRequest] = []
    Search({WHOLE: whole}, [parse_axis("lr=1e-3,1e-1")], 0.5, False).look_ahead(asked.append)
    assert [trial.init for trial in asked] == [str(checkpoints[WHOLE])] * 2
