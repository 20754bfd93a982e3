"""What a comparison leaves for papers and programs: Markdown and comma-separated values."""

import csv
import io

from stored_results import failed, failed_early, measured, no_items, result, sized

from seqbench.report.ablations import ablation_report
from seqbench.report.document import Document, Line, Row, Sheet
from seqbench.report.measurements_csv import results_csv
from seqbench.report.table import comparison_report


def lines(*results):
    return list(csv.DictReader(io.StringIO(results_csv(results))))


def cells(line):
    return [cell.strip().replace("\\*", "*") for cell in line.strip("|").split(" | ")]


def tables(text):
    """Rows of the tables of a Markdown text, by the title above them."""
    found, title = {}, ""
    for line in text.splitlines():
        if line.startswith("### "):
            title = line.removeprefix("### ")
        elif line.startswith("|"):
            found.setdefault(title, []).append(cells(line))
    return found


def test_a_table_is_markdown_with_numbers_to_the_right() -> None:
    sheet = Sheet("points", ("model", "value"), [Row(("near", "0.5"), style="bold"), Row(("far", "0.25"))])
    assert sheet.markdown() == ("### points\n\n| model | value |\n| :--- | ---: |\n| near | 0.5 |\n| far | 0.25 |\n")


def test_signs_of_markdown_in_names_are_kept_as_text() -> None:
    assert "a\\|b" in Sheet("", ("",), [Row(("a|b",))]).markdown()
    assert Line("* beyond").markdown() == "- \\* beyond\n"
    assert Line("snake_case < 0.5 <b>").markdown() == "- snake_case < 0.5 \\<b>\n"


def test_lines_make_one_list_and_tables_stand_apart() -> None:
    document = Document([Line("one"), Line("two"), Sheet("", ("a",), []), Line("three")])
    assert document.markdown() == "- one\n- two\n\n| a |\n| :--- |\n\n- three\n"


def test_the_markdown_of_a_comparison_has_curves_facts_verdicts_and_failures() -> None:
    results = [result(model, seed, (0.9, low + seed / 100)) for seed in range(3) for model, low in MODELS]
    found = tables(text := comparison_report([*results, failed("broken", 1)], no_items).markdown())
    [curves, figures, pairs] = [found[title] for title in found if title]
    assert ["6", "0.510 ± 0.025 *", "0.110 ± 0.025 *", "failed"] in curves
    assert ["parameters", "1,234,567", "1,234,567", "1,234,567"] in curves, "facts have no title of their own"
    assert ["seed 1", "0.7050", "0.5050", "failed: divergence"] in figures
    assert pairs[2][:3] == ["near", "far", "ahead"]
    assert pairs[3][:3] == ["near", "broken", "failed"]
    assert "- broken, seed 1: failed (divergence): the loss is gone\n" in text


MODELS = (("near", 0.5), ("far", 0.1))


def test_the_markdown_of_ablations_has_one_row_each() -> None:
    ablated = result("near", 0, (0.9, 0.1))
    ablated["model"]["ablation"] = "no-memory"
    [rows] = tables(ablation_report([result("near"), ablated], no_items).markdown()).values()
    assert rows[0] == ["", "parameters", "overall", "change", "2", "6"]
    assert rows[2:] == [
        ["near", "1,234,567", "0.7000", "-", "0.900", "0.500"],
        ["no-memory", "1,234,567", "0.5000", "-0.2000", "0.900", "0.100"],
    ]


def test_every_measurement_of_every_run_is_a_line() -> None:
    rows = lines(result("near", 0, (0.9, 0.5)), result("far", 1, (1 / 3, 0.5)))
    assert [(row["model"], row["seed"], row["coordinate_lookback"]) for row in rows] == [
        ("near", "0", "2"),
        ("near", "0", "6"),
        ("near", "0", ""),
        ("far", "1", "2"),
        ("far", "1", "6"),
        ("far", "1", ""),
    ]
    assert float(rows[3]["value"]) == 1 / 3
    assert {row["metric"] for row in rows} == {"accuracy"}
    assert {(row["unit"], row["n"], row["split"], row["task"]) for row in rows} == {
        ("fraction", "1000", "test", "recall")
    }


def test_an_unbounded_coordinate_is_not_a_missing_one() -> None:
    rows = lines(result(measurements=[measured(0.5, reach=None), measured(0.6, lookback=3), measured(0.7, reach=4)]))
    assert [row["coordinate_reach"] for row in rows] == ["unbounded", "", "4"]


def test_a_value_that_is_no_number_is_left_empty() -> None:
    assert lines(result(measurements=[measured(None)]))[0]["value"] == ""


def test_budgets_and_sizes_stand_in_columns_of_their_own() -> None:
    matched, off, free = lines(
        sized(result(measurements=[measured(0.5)]), 200_000, 201_000),
        sized(result(measurements=[measured(0.5)]), 200_000, 210_000),
        result(measurements=[measured(0.5)]),
    )
    assert matched["budget_parameters-non-embedding_target"] == "200000"
    assert off["budget_parameters-non-embedding_achieved"] == "210000"
    assert float(off["budget_parameters-non-embedding_deviation"]) == 0.05
    assert free["budget_parameters-non-embedding_target"] == ""
    assert free["budget_steps_achieved"] == "5"
    assert [row["unmatched"] for row in (matched, off, free)] == ["False", "True", ""]
    assert matched["parameters_non_embedding"] == "1000000"


def test_an_ablation_is_named_beside_its_model() -> None:
    ablated = result(measurements=[measured(0.5)])
    ablated["model"]["ablation"] = "no-memory"
    [row] = lines(ablated)
    assert (row["model"], row["ablation"]) == ("near", "no-memory")


def test_a_failed_run_keeps_a_line_with_its_reason() -> None:
    rows = lines(result(measurements=[measured(0.5)]), failed("broken", 1), failed_early("gone", 2))
    assert [(row["model"], row["seed"], row["status"], row["failure"], row["value"]) for row in rows] == [
        ("near", "0", "complete", "", "0.5"),
        ("broken", "1", "failed", "divergence", ""),
        ("gone", "2", "failed", "divergence", ""),
    ]
