"""Tables and plots from stored results."""

import copy
import math
from types import SimpleNamespace

import pytest
from stored_results import failed, failed_early, measured, no_items, result, shown, sized

from seqbench.comparing.comparability import require_comparable
from seqbench.errors import RequestError
from seqbench.evaluating.measured import overall
from seqbench.report.ablations import ablation_report
from seqbench.report.plot import plot_results
from seqbench.report.results import primary_curves
from seqbench.report.table import comparison_report, failure_line, run_report
from seqbench.statistics.summary import summarise

GRID = [
    result("near", 0, (0.9, 0.5)),
    result("far", 0, (0.8, 0.7), reach=None),
    result("near", 1, (0.7, 0.1)),
    result("far", 1, (0.8, 0.75), reach=None),
    result("near", 2, (0.8, 0.3)),
    result("far", 2, (0.8, 0.74), reach=None),
]


def compared(results, width=200):
    return shown(comparison_report(results, no_items), width)


def rows(text, name):
    """The cells of the lines that begin with `name`, in order; cells are two spaces apart."""
    lines = [[cell.strip() for cell in line.strip().split("  ") if cell.strip()] for line in text.splitlines()]
    return [line[1:] for line in lines if line[:1] == [name]]


def row(text, name):
    """The cells of the line that begins with `name`."""
    [found] = rows(text, name)
    return found


def test_a_summary_is_mean_sample_deviation_and_range():
    summary = summarise([1.0, 2.0, 6.0])
    assert (summary.mean, summary.lowest, summary.highest, summary.seeds) == (3.0, 1.0, 6.0, 3)
    assert summary.deviation == pytest.approx(math.sqrt(7))
    assert summarise([2.0]).deviation is None
    assert summarise([0.1] * 10).mean == 0.1
    assert summarise([0.1] * 10).deviation == pytest.approx(0, abs=1e-15)


def test_curves_collect_seeds_by_model_and_place():
    near, far = primary_curves(GRID)
    assert (near.label, near.reach, near.points) == ("near", 4, {2: [0.9, 0.7, 0.8], 6: [0.5, 0.1, 0.3]})
    assert (far.label, far.reach, far.points) == ("far", None, {2: [0.8] * 3, 6: [0.7, 0.75, 0.74]})
    assert near.summary(3) is None


def test_a_run_has_one_value_at_a_place_however_many_measurements_lie_there():
    grid = copy.deepcopy([result("near", seed, (0.5, 0.9)) for seed in (0, 1)])
    for run in grid:
        first, second, *_ = run["measurements"]
        second["coordinates"] = {**first["coordinates"], "other": 1}
        first["n"], second["n"] = 300, 100
    [near] = primary_curves(grid)
    [place] = near.points
    assert near.points[place] == [pytest.approx((300 * 0.5 + 100 * 0.9) / 400)] * 2


def test_the_measurement_without_coordinates_is_the_overall_one():
    assert overall(result(values=(0.9, 0.5))) == 0.7
    assert overall(failed()) is None


def test_a_comparison_has_models_side_by_side():
    text = compared(GRID)
    assert "1,234,567" in text
    assert "depth: 1 layer" in text
    assert "mixer: near: near; far: far" in text
    assert text.count("chance is 1/8") == 1


def test_the_spread_is_half_the_95_percent_interval_of_the_mean():
    """0.2 is the deviation of 0.5, 0.1, 0.3, and 4.303 is Student's t for three seeds."""
    assert row(compared(GRID), "6")[0] == f"0.300 ± {4.303 * 0.2 / math.sqrt(3):.3f} *"
    assert "mean ± half its 95 % interval" in compared(GRID)
    assert "interval over seeds" not in compared(GRID[:2])


def test_only_places_beyond_a_finite_reach_are_marked():
    text = compared(GRID)
    assert [sum(cell.endswith("*") for cell in row(text, place)) for place in ("2", "6")] == [0, 1]


def test_no_figure_is_lost_in_a_narrow_terminal():
    many = [result(f"model-number-{number}", seed, (0.9, 0.5)) for seed in (0, 1) for number in range(5)]
    text = compared(many, width=80)
    assert text.count("0.900") >= 5
    assert "…" not in text


def test_a_table_that_is_far_too_wide_goes_on_below_with_its_rows_named_again():
    wide, narrow = (
        [cells[1:] for cells in rows(compared(GRID, width), "near") if cells[0] == "far" and len(cells) > 1]
        for width in (200, 60)
    )
    assert len(wide) == 1
    assert len(narrow) > 1
    assert [cell for cells in narrow for cell in cells] == wide[0]


def test_names_that_look_like_markup_are_shown_as_they_are():
    text = compared([result("pkg:[red]Model[/red]"), result("far")])
    assert "pkg:[red]Model[/red]" in text


def test_failed_runs_are_shown_and_counted_nowhere():
    text = compared([*GRID, failed(seed=1)])
    assert "broken, seed 1: failed (divergence): the loss is gone" in text
    assert [curve.label for curve in primary_curves([*GRID, failed()])] == ["near", "far"]
    assert compared([failed()]).strip() == failure_line(failed())
    assert "divergence" in shown(run_report(failed()))


@pytest.mark.parametrize("failure", [failed, failed_early])
def test_a_model_without_any_complete_run_keeps_its_column_in_every_table(failure):
    text = compared([*GRID, *(failure("broken", seed) for seed in range(3))])
    assert row(text, "6")[-1] == "failed"
    assert row(text, "runs complete") == ["3 of 3", "3 of 3", "0 of 3"]
    assert row(text, "accuracy, all")[-1] == "failed"
    assert row(text, "parameters")[-1] == ("1,234,567" if failure is failed else "-")
    assert row(text, "seed 1")[-1] == "failed: divergence"


def test_a_model_that_failed_with_one_seed_keeps_the_others():
    text = compared([result("near", 0, (0.9, 0.5)), failed("near", 1)])
    assert "0.900" in text
    assert "near, seed 1: failed" in text
    assert row(text, "runs complete") == ["1 of 2"]


def test_an_ablation_is_a_model_of_its_own():
    ablated = result("near", 0)
    ablated["model"]["ablation"] = "no-memory"
    assert [curve.label for curve in primary_curves([result("near", 0), ablated])] == ["near", "near (no-memory)"]


def test_the_size_asked_for_and_the_deviation_from_it_are_shown():
    text = compared([sized(result("near"), 200_000, 201_000), sized(result("far"), 200_000, 199_000)])
    assert row(text, "non-embedding parameters matched to") == ["200,000 (+0.5 %)", "200,000 (-0.5 %)"]
    assert "unmatched" not in text
    assert "parameters matched to" not in compared(GRID)
    total = compared([sized(result("near"), 200_000, 201_000, "parameters-total")])
    assert row(total, "total parameters matched to") == ["200,000 (+0.5 %)"]


def test_a_model_beyond_the_tolerance_is_marked_in_every_table(tmp_path):
    results = [
        sized(result(model, seed, (0.9, 0.5 + seed / 100)), 200_000, achieved)
        for seed in range(3)
        for model, achieved in (("near", 204_000), ("far", 204_200))
    ]
    text = compared(results)
    # Curves, facts, figures by seed, pairs: the headings of three tables and a cell of the fourth.
    assert text.count("far (unmatched +2.1 %)") == 4
    assert "near (unmatched" not in text
    assert "far (unmatched +2.1 %)" in shown(run_report(results[1]))
    assert "far (unmatched +2.1 %)" in shown(ablation_report(results[1:2], no_items))
    plot_results(results, tmp_path / "plot.svg")
    assert "<!-- far (unmatched +2.1 %) -->" in (tmp_path / "plot.svg").read_text()


def test_a_score_that_is_no_number_does_not_spoil_the_table(tmp_path):
    spoilt = [*GRID, result("lost", 0, (0.5, 0.5))]
    for measurement in spoilt[-1]["measurements"][1:]:
        measurement["value"] = None
    text = compared(spoilt)
    assert row(text, "6")[1:] == ["0.730 ± 0.066", "not finite *"]
    assert row(text, "accuracy, all")[2] == row(text, "seed 0")[2] == "not finite"
    assert "lost, seed 0: its figure is missing or no finite number" in text
    assert plot_results(spoilt, tmp_path / "plot.png")


def test_a_task_that_measures_nothing_over_its_coordinate_still_has_a_table():
    bare = result(measurements=[measured(0.25)])
    assert "0.250" in shown(run_report(bare))
    assert "0.250" in compared([bare])


def test_a_task_without_an_overall_figure_has_no_verdicts_and_says_so():
    bare = [result(model, measurements=[measured(0.25, lookback=2)]) for model in ("near", "far")]
    assert "no verdicts: accuracy over the whole test set is measured in no run" in compared(bare)


def test_a_coordinate_may_be_a_word(tmp_path):
    named = result()
    named["task"] = {**named["task"], "primary_coordinate": "language"}
    named["measurements"] = [measured(0.25, language="de"), measured(0.75, language="fr")]
    text = compared([named])
    assert "de" in text
    assert "0.750" in text
    assert "fr" in shown(ablation_report([named], no_items))
    plot_results([named], tmp_path / "plot.svg")
    assert "<!-- fr -->" in (tmp_path / "plot.svg").read_text()


def test_a_plot_is_drawn_in_the_format_of_its_name(tmp_path):
    assert plot_results(GRID, tmp_path / "plot.png")
    assert plot_results(GRID, tmp_path / "plot.svg")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert "<svg" in (tmp_path / "plot.svg").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plot.png", "plot.svg"]


def test_the_same_results_make_the_same_picture(tmp_path):
    for name in ("one.svg", "other.svg"):
        plot_results(GRID, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()


def test_a_plot_of_several_models_shows_each_with_its_seeds_and_what_failed(tmp_path):
    plot_results([*GRID, failed()], tmp_path / "plot.svg")
    text = (tmp_path / "plot.svg").read_text()
    for told in ("broken: failed with every seed", "over the whole test set", "reach 4", "near, reach 4"):
        assert f"<!-- {told} -->" in text, told


def test_nothing_is_drawn_of_failures(tmp_path):
    assert not plot_results([failed()], tmp_path / "plot.png")
    assert not list(tmp_path.iterdir())


def cells(results):
    """What the comparison of these results looks at beside them."""
    task, trainer, budget = SimpleNamespace(version="1"), SimpleNamespace(batch_size=4), SimpleNamespace(kind="steps")
    return [SimpleNamespace(plan=SimpleNamespace(task=task, trainer=trainer, budget=budget)) for _ in results]


def test_results_on_different_data_are_not_compared():
    other = copy.deepcopy(GRID)
    other[3]["data_order_sha256"] = "bb"
    require_comparable(cells(GRID), GRID)
    with pytest.raises(RequestError, match="far seed 1 and near seed 1 saw different training data"):
        require_comparable(cells(other), other)


def test_failed_runs_need_no_equal_data():
    results = [*GRID, {**failed(), "data_order_sha256": "bb"}]
    require_comparable(cells(results), results)
