"""Tables at every width: a line ends at a space, and never inside a name or a number."""

import io
import re

import pytest
from rich.console import Console

from seqbench.cli.console import FILE_WIDTH, console
from seqbench.comparing.estimate import ModelEstimate
from seqbench.report.document import Row, Sheet
from seqbench.report.plan import Work, plan_report

WIDTHS = (60, 80, 100, 120, 200)

NAMES = ("sliding-attention (no-recurrence@eval)", "package.module:Model")
MEANINGS = ("what a long-winded author says of a field, in many words", "brief")
SHEET = Sheet(
    "",
    ("model", "non-embedding parameters", "difference [95 %]", "meaning"),
    [
        Row((name, "207,360", "-0.1250 [-0.2250, -0.0250]", meaning))
        for name, meaning in zip(NAMES, MEANINGS, strict=True)
    ],
    prose=(3,),
)


def lines(renderable: object, width: int) -> list[str]:
    output = Console(file=io.StringIO(), width=width)
    output.print(renderable)
    return output.file.getvalue().splitlines()


@pytest.mark.parametrize("width", WIDTHS)
def test_names_and_numbers_stay_whole_and_no_line_is_wider_than_the_terminal(width: int) -> None:
    shown = lines(SHEET, width)
    assert max(map(len, shown)) <= width
    for whole in (*NAMES, "207,360", "-0.1250 [-0.2250, -0.0250]"):
        assert any(whole in line for line in shown), whole


@pytest.mark.parametrize("width", WIDTHS)
def test_words_are_broken_at_spaces_only(width: int) -> None:
    words = set(" ".join([*SHEET.headings, *MEANINGS, *NAMES, "207,360 -0.1250 [-0.2250, -0.0250]"]).split())
    assert set(re.findall(r"[^\s─]+", " ".join(lines(SHEET, width)))) == words


def test_a_number_keeps_its_percent_sign() -> None:
    assert any("[95 %]" in line for line in lines(SHEET, 60))


def test_what_is_too_wide_goes_on_below_under_the_names_again() -> None:
    assert sum(NAMES[0] in line for line in lines(SHEET, 200)) == 1
    assert sum(NAMES[0] in line for line in lines(SHEET, 60)) > 1


def test_only_what_fits_no_width_is_folded() -> None:
    long = "x" * 70
    text = "".join(line.strip() for line in lines(Sheet("", ("name",), [Row((long,))]), 40))
    assert text.count("x") == 70


def estimate(label: str, depth: str) -> ModelEstimate:
    width = "hidden_size=56, intermediate_size=152"
    return ModelEstimate(label, 200_000, 199_768, width, depth, 1.28e6, 27_968, 2.5e12, 412.0, 10**6)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_plan_of_a_comparison_can_be_read_at_every_width(width: int) -> None:
    depth = "8 blocks (two stand for one transformer layer)"
    estimates = [estimate("attention", "4 layers"), estimate("state-space", depth)]
    shown = lines(plan_report(estimates, Work(6, {"attention": 3}, 2)), width)
    assert max(map(len, shown)) <= width
    for whole in ("parameters", "deviation", "FLOPs/token", "199,768", "-0.12%", "1.28e+06", "27.3", "6:52"):
        assert any(whole in line for line in shown), whole
    for whole in ("hidden_size=56", "intermediate_size=152", "transformer", "state-space"):
        assert any(whole in line for line in shown), whole


def test_where_there_is_no_terminal_tables_are_as_wide_as_the_widest_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console().width == FILE_WIDTH
    monkeypatch.setenv("COLUMNS", "77")
    assert console().width == 77
