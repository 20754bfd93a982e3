"""Tables, plots and summaries from stored results."""

import copy
import io
import math

import pytest
from rich.console import Console

from seqbench.comparison import compare_data_order
from seqbench.errors import RequestError
from seqbench.report.plot import plot_results
from seqbench.report.results import overall, primary_curves
from seqbench.report.table import comparison_report, failure_line, run_report
from seqbench.statistics import summarise


def measured(value, **coordinates):
    return {
        "metric": "accuracy",
        "value": value,
        "unit": "fraction",
        "n": 8,
        "split": "test",
        "coordinates": coordinates,
    }


def result(model="near", seed=0, values=(0.9, 0.5), reach=4, **changes):
    """A stored result with the given accuracies at look-backs 2, 6, ..."""
    places = [measured(value, lookback=2 + 4 * number) for number, value in enumerate(values)]
    return {
        "status": "complete",
        "model": {"name": model, "ablation": None},
        "task": {
            "name": "recall",
            "primary_metric": "accuracy",
            "primary_coordinate": "lookback",
            "higher_is_better": True,
        },
        "seed": seed,
        "parameters_total": 1234567,
        "parameters_non_embedding": 1000000,
        "flops": {"training_per_token": 2.5e6, "convention": "", "sequence_length": 8},
        "state_bytes": {"8": 2048},
        "attention_reach": reach,
        "confounds": {"depth": "1 layer", "mixer": model},
        "notes": ["chance is 1/8"],
        "tokens": 4321,
        "seconds": 61.0,
        "budgets": [{"kind": "steps", "target": 5, "achieved": 5, "deviation": 0.0}],
        "data_order_sha256": "aa",
        "measurements": [*places, measured(sum(values) / len(values))],
        **changes,
    }


def failed(model="broken", seed=0):
    return {
        **result(model, seed),
        "status": "failed",
        "failure": {"reason": "divergence", "message": "the loss is gone"},
        "measurements": [],
    }


def shown(renderable, width=160):
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


GRID = [
    result("near", 0, (0.9, 0.5)),
    result("far", 0, (0.8, 0.7), reach=None),
    result("near", 1, (0.7, 0.1)),
    result("far", 1, (0.8, 0.75), reach=None),
]


def test_a_summary_is_mean_sample_deviation_and_range():
    summary = summarise([1.0, 2.0, 6.0])
    assert (summary.mean, summary.lowest, summary.highest, summary.seeds) == (3.0, 1.0, 6.0, 3)
    assert summary.deviation == pytest.approx(math.sqrt(7))
    assert summarise([2.0]).deviation is None
    assert summarise([0.1] * 10).mean == 0.1
    assert summarise([0.1] * 10).deviation == pytest.approx(0, abs=1e-15)


def test_curves_collect_seeds_by_model_and_place():
    near, far = primary_curves(GRID)
    assert (near.label, near.reach, near.points) == ("near", 4, {2: [0.9, 0.7], 6: [0.5, 0.1]})
    assert (far.label, far.reach, far.points) == ("far", None, {2: [0.8, 0.8], 6: [0.7, 0.75]})
    assert near.summary(3) is None


def test_the_measurement_without_coordinates_is_the_overall_one():
    assert overall(result(values=(0.9, 0.5))) == 0.7
    assert overall(failed()) is None


def test_a_comparison_has_models_side_by_side():
    text = shown(comparison_report(GRID))
    [row] = [line for line in text.splitlines() if line.split()[:1] == ["6"]]
    assert row.split() == ["6", "0.300", "±", "0.283", "*", "0.725", "±", "0.035"]
    assert "1,234,567" in text
    assert "depth: 1 layer" in text
    assert "mixer: near: near; far: far" in text
    assert text.count("chance is 1/8") == 1


def test_only_places_beyond_a_finite_reach_are_marked():
    rows = [line for line in shown(comparison_report(GRID)).splitlines() if line.split()[:1] in (["2"], ["6"])]
    assert [row.count("*") for row in rows] == [0, 1]


def test_no_figure_is_lost_in_a_narrow_terminal():
    many = [result(f"model-number-{number}", seed, (0.9, 0.5)) for seed in (0, 1) for number in range(5)]
    text = shown(comparison_report(many), width=80)
    assert text.count("0.900") >= 5
    assert "…" not in text


def test_failed_runs_are_shown_and_counted_nowhere():
    text = shown(comparison_report([*GRID, failed(seed=1)]))
    assert "broken, seed 1: failed (divergence): the loss is gone" in text
    assert [curve.label for curve in primary_curves([*GRID, failed()])] == ["near", "far"]
    assert shown(comparison_report([failed()])).strip() == failure_line(failed())
    assert "divergence" in shown(run_report(failed()))


def test_a_model_that_failed_with_one_seed_keeps_the_others():
    text = shown(comparison_report([result("near", 0, (0.9, 0.5)), failed("near", 1)]))
    assert "0.900" in text
    assert "near, seed 1: failed" in text


def test_an_ablation_is_a_model_of_its_own():
    ablated = result("near", 0)
    ablated["model"]["ablation"] = "no-memory"
    assert [curve.label for curve in primary_curves([result("near", 0), ablated])] == ["near", "near (no-memory)"]


def test_a_score_that_is_no_number_does_not_spoil_the_table(tmp_path):
    spoilt = [*GRID, result("lost", 0, (0.5, 0.5))]
    spoilt[-1]["measurements"][1]["value"] = None
    assert "0.300 ± 0.283" in shown(comparison_report(spoilt))
    assert plot_results(spoilt, tmp_path / "plot.png")


def test_a_task_that_measures_nothing_over_its_coordinate_still_has_a_table():
    bare = result(measurements=[measured(0.25)])
    assert "0.250" in shown(run_report(bare))
    assert "0.250" in shown(comparison_report([bare]))


def test_a_coordinate_may_be_a_word():
    named = result()
    named["task"] = {**named["task"], "primary_coordinate": "language"}
    named["measurements"] = [measured(0.25, language="de"), measured(0.75, language="fr")]
    text = shown(comparison_report([named]))
    assert "de" in text
    assert "0.750" in text


def test_a_plot_is_drawn_in_the_format_of_its_name(tmp_path):
    assert plot_results(GRID, tmp_path / "plot.png")
    assert plot_results(GRID, tmp_path / "plot.svg")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert "<svg" in (tmp_path / "plot.svg").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plot.png", "plot.svg"]


def test_nothing_is_drawn_of_failures(tmp_path):
    assert not plot_results([failed()], tmp_path / "plot.png")
    assert not list(tmp_path.iterdir())


def test_results_on_different_data_are_not_compared():
    other = copy.deepcopy(GRID)
    other[3]["data_order_sha256"] = "bb"
    compare_data_order(GRID)
    with pytest.raises(RequestError, match="far and near saw different training data at seed 1"):
        compare_data_order(other)


def test_failed_runs_need_no_equal_data():
    compare_data_order([*GRID, {**failed(), "data_order_sha256": "bb"}])
