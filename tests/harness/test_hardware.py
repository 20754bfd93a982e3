"""Runs of different hardware: what they measure is compared, and their training times are not."""

from pathlib import Path

import pytest
from stored_grid import store_grid
from stored_results import no_items, result, shown
from stored_run import edit

from seqbench.comparing.comparability import require_comparable, with_hardware
from seqbench.comparing.grid import GridRun, columns, plan_grid
from seqbench.errors import RequestError
from seqbench.planning.request import RunRequest
from seqbench.report.measurements_csv import results_csv
from seqbench.report.table import comparison_report

WHOLE, OTHER = "toy_model:Neighbour", "toy_model:ShortSighted"
COLUMNS = columns(RunRequest("", "toy_task:Recall"), [WHOLE, OTHER], [(WHOLE, "deaf@eval")])


@pytest.fixture
def grid(tmp_path: Path) -> tuple[list[GridRun], list[dict]]:
    """A model, what it measures without a part, and another model; all trained here."""
    return plan_grid(COLUMNS, 1, tmp_path), store_grid(COLUMNS, 1, tmp_path)


def trained_on(cell: GridRun, **changes: object) -> None:
    edit(cell.folder.path / "environment.json", **changes)


def test_where_all_runs_are_of_one_machine_results_stay_as_they_are(grid) -> None:
    cells, results = grid
    assert with_hardware(cells, results) == results


@pytest.mark.parametrize("changed", [{"device_name": "another processor"}, {"threads": 7}, {"cores": 9}])
def test_another_processor_or_another_number_of_threads_or_cores_is_told_with_each_run(grid, changed: dict) -> None:
    cells, results = grid
    trained_on(cells[2], **changed)
    require_comparable(cells, results)
    whole, left, other = (each["hardware"] for each in with_hardware(cells, results))
    assert whole == left != other
    assert all(f"{value}" in other for value in changed.values())


def test_an_ablation_at_evaluation_was_trained_where_the_whole_model_was(grid) -> None:
    cells, results = grid
    trained_on(cells[0], device_name="another processor")
    told = [each["hardware"].split(",")[0] for each in with_hardware(cells, results)]
    assert told[:2] == ["another processor"] * 2 and told[2] != told[0]


def test_hardware_that_cannot_be_read_is_unknown_and_costs_no_table(grid) -> None:
    cells, results = grid
    (cells[2].folder.path / "environment.json").write_text('{"device')
    assert with_hardware(cells, results)[2]["hardware"] == "unknown hardware"


def test_with_a_budget_of_time_they_are_not_compared_at_all(tmp_path: Path) -> None:
    timed = columns(RunRequest("", "toy_task:Recall", budget_kind="seconds", budget_target=0.01), [WHOLE, OTHER])
    cells, results = plan_grid(timed, 1, tmp_path), store_grid(timed, 1, tmp_path)
    require_comparable(cells, results)
    trained_on(cells[1], device_name="another processor")
    with pytest.raises(RequestError, match=r"device_name \(the budget is time\) is .* and another processor"):
        require_comparable(cells, results)


HERE, THERE = "one processor, 2 cores, 1 thread", "another processor, 8 cores, 8 threads"


def on(model: str, seed: int, hardware: str) -> dict:
    return result(model, seed, hardware=hardware)


def times(results: list[dict]) -> list[str]:
    text = shown(comparison_report(results, no_items))
    [line] = [line for line in text.splitlines() if line.strip().startswith("training time ")]
    return [cell.strip() for cell in line.strip().split("  ") if cell.strip()][1:]


def test_times_are_marked_and_a_note_says_which_run_was_trained_where() -> None:
    results = [
        on(model, seed, HERE if model != "far" else THERE) for seed in (0, 1) for model in ("near", "far", "mid")
    ]
    assert times(results) == ["1:01", "1:01 (other hardware)", "1:01"]
    text = " ".join(shown(comparison_report(results, no_items)).split())
    assert "training times were taken on different hardware and do not compare: " in text
    assert f"{HERE}: near seed 0, mid seed 0, near seed 1, mid seed 1; {THERE}: far seed 0, far seed 1" in text


def test_a_mean_over_seeds_of_different_hardware_is_marked_as_such() -> None:
    results = [on("near", 0, HERE), on("near", 1, THERE), on("far", 0, HERE), on("far", 1, HERE)]
    assert times(results) == ["1:01 (mixed hardware)", "1:01"]


def test_the_figures_are_compared_all_the_same() -> None:
    results = [on(model, seed, HERE if model == "near" else THERE) for seed in (0, 1, 2) for model in ("near", "far")]
    [pair] = comparison_report(results, no_items).data["verdicts"]["pairs"]
    assert pair["verdict"] == "not distinguishable"


def test_the_hardware_stands_in_the_comma_separated_values() -> None:
    assert THERE in results_csv([on("near", 0, HERE), on("far", 0, THERE)])
    assert shown(comparison_report([result("near"), result("far")], no_items)).count("hardware") == 0
