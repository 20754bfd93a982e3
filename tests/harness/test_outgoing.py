"""Names of strangers reach terminals, tables, spreadsheets and figures as the letters that they are."""

import csv
import io
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from seqbench.cli.show import show
from seqbench.report.document import Document, Line, Row, Sheet
from seqbench.report.measurements_csv import results_csv
from seqbench.report.outgoing import save_figure, spreadsheet_cell
from seqbench.surroundings.visible import visible

CLEAR_SCREEN = "\x1b[2J"
TURNED = "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe"
LONE_SURROGATE = "\udc9b31m"


@given(st.text(alphabet=st.characters()))
def test_what_is_visible_can_be_printed_anywhere_and_steers_nothing(text):
    shown = visible(text)
    shown.encode("utf-8")
    assert all(letter.isprintable() or letter in "\n\t\N{NO-BREAK SPACE}" for letter in shown)
    assert visible(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mamba (no-conv)", "mamba (no-conv)"),
        ("Zoë ± 1 µs", "Zoë ± 1 µs"),
        ("two\nlines", "two\nlines"),
        (CLEAR_SCREEN, r"\x1b[2J"),
        ("a\rb", r"a\rb"),
        (TURNED, r"\u202egpj.exe"),
        (LONE_SURROGATE, r"\udc9b31m"),
        ("\N{ZERO WIDTH SPACE}", r"\u200b"),
    ],
)
def test_letters_stay_and_everything_else_is_written_out(text, shown):
    assert visible(text) == shown


def test_tables_and_lines_hold_no_escape_sequence_in_any_form():
    document = Document(
        [Sheet(CLEAR_SCREEN, ("model", TURNED), [Row((CLEAR_SCREEN, "1.0"))], prose=(0,)), Line(LONE_SURROGATE)]
    )
    output = io.StringIO()
    Console(file=output, width=80).print(document)
    for text in (output.getvalue(), document.markdown()):
        assert "\x1b" not in text
        assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in text
        text.encode("utf-8")
    assert r"\x1b[2J" in output.getvalue()


@pytest.mark.parametrize("text", ["=cmd|'/c calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_spreadsheet_computes_no_name(text):
    assert spreadsheet_cell(text) == f"'{visible(text)}"


@pytest.mark.parametrize("value", [-0.5, 3, None, True, "mamba", "a=b"])
def test_numbers_and_ordinary_names_stay(value):
    assert spreadsheet_cell(value) is value or spreadsheet_cell(value) == value


def test_no_cell_of_the_results_is_a_formula():
    result = {
        "status": "complete",
        "task": {"name": "=task()"},
        "model": {"name": "=model()", "ablation": "@off"},
        "seed": 0,
        "budgets": [],
        "measurements": [
            {
                "metric": "=metric()",
                "value": -0.25,
                "unit": "+unit",
                "n": 3,
                "split": "test",
                "coordinates": {"=x": "-place"},
            }
        ],
    }
    rows = list(csv.reader(io.StringIO(results_csv([result]))))
    cells = [cell for row in rows for cell in row]
    assert "-0.25" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@")) or cell == "-place"]
    assert "'=model()" in cells


@pytest.mark.parametrize("name", [CLEAR_SCREEN, "costs $1 or $2_{", r"\frac{", LONE_SURROGATE, "<script>", "a--b"])
@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_a_figure_of_any_name_is_drawn_and_is_what_its_suffix_says(tmp_path, name, suffix):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.loglog([1, 10, 100], [1, 2, 3], label=name)
    axes.set_title(name)
    axes.legend()
    path = tmp_path / f"plot{suffix}"
    save_figure(figure, path)
    if suffix == ".svg":
        ElementTree.parse(path)
        assert "<script>" not in path.read_text()
    else:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_show_takes_brackets_in_a_name_for_letters(tmp_path, monkeypatch):
    outcome = CliRunner().invoke(show, ["no.such[red]:Model\x1b[2J"])
    assert outcome.exit_code == 2
    assert "[red]" in outcome.output
