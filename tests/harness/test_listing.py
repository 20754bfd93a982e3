"""`bench list`: what is installed, what it costs and what it was published as, also where some of it is broken."""

import json

import pytest
from announced_package import announce_package
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from seqbench.cli.inventory import short
from seqbench.cli.listing import in_columns, list_plugins

ENTRY_POINTS = """\
[bench.models]
listed-broken = broken_on_import:Model

[bench.tasks]
listed-published = listed_tasks:Published
listed-measures-only = listed_tasks:MeasuresOnly
listed-may-train = listed_tasks:MayTrain
listed-without-data = listed_tasks:WithoutData
listed-faulty = listed_tasks:Faulty
listed-broken = listed_tasks:NoSuchTask
"""


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    announce_package(tmp_path, "listed", ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))


def listed(*arguments: str, columns: int = 80) -> str:
    outcome = CliRunner().invoke(list_plugins, arguments, env={"COLUMNS": str(columns)})
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


def rows(*arguments: str) -> dict[str, dict]:
    return {row["name"]: row for row in json.loads(listed(*arguments, "--json"))}


def test_the_cost_of_a_preset_is_steps_times_batch_times_longest_sequence():
    presets = rows("tasks")["listed-published"]["presets"]
    assert presets["tiny"]["training_tokens_at_most"] == 12 * 4 * 6
    assert presets["huge-and-as-published-in-the-appendix"]["training_tokens_at_most"] == 123_457 * 256 * 1_000_000
    assert presets["tiny"]["cost"] == "at most 288 training tokens"
    assert presets["huge-and-as-published-in-the-appendix"]["cost"] == "at most 31.6T training tokens"
    # Where the preset is silent, the trainer's defaults count.
    assert presets["defaults"]["training_tokens_at_most"] == 1000 * 64 * 10


def test_a_task_says_what_it_measures_and_what_its_presets_were_published_as():
    text = " ".join(listed("tasks").split())
    row = rows("tasks")["listed-published"]
    assert row["summary"] in text
    for name, preset in row["presets"].items():
        assert f"{name} {preset['cost']} {preset['figure']}".strip() in text


def test_what_trains_nothing_measures_only():
    assert {preset["cost"] for preset in rows("tasks")["listed-measures-only"]["presets"].values()} == {"measures only"}
    zero_shot = rows("tasks")["listed-may-train"]["presets"]["zero-shot"]
    assert (zero_shot["cost"], zero_shot["training_tokens_at_most"]) == ("measures only", 0)


def test_data_that_is_not_there_is_not_looked_for():
    presets = rows("tasks")["listed-without-data"]["presets"]
    assert {preset["cost"] for preset in presets.values()} == {"size of the data"}
    assert {preset["training_tokens_at_most"] for preset in presets.values()} == {None}
    assert "size of the data" in listed("tasks")


def test_what_is_broken_is_listed_with_the_reason_and_harms_nobody_else():
    text = " ".join(listed("tasks").split())
    assert "unknown cost ZeroDivisionError: division by zero" in text
    assert "listed-broken broken: " in text and "has no attribute 'NoSuchTask'" in text
    assert rows("tasks")["listed-faulty"]["presets"]["tiny"]["broken"] == "ZeroDivisionError: division by zero"
    # Twice: the task has two presets.
    assert "raise ZeroDivisionError" not in text and listed("tasks", "--verbose").count("raise ZeroDivisionError") == 2
    assert "libtoy.so" in listed("models")


def test_models_and_tasks_are_listed_together_and_apart():
    both = listed()
    assert both.index("models\n") < both.index("listed-broken") < both.index("tasks\n") < both.index("listed-published")
    assert "listed-published" not in listed("models")
    assert {row["kind"] for row in rows("models").values()} == {"model"}
    assert "one of our own" in listed("presets") and "as published" in listed("presets")


@pytest.mark.parametrize("what", ["tasks", "models", "presets"])
@pytest.mark.parametrize("columns", [20, 80, 200])
def test_a_line_ends_within_the_terminal_or_inside_a_single_word(what, columns):
    for line in listed(what, columns=columns).splitlines():
        # Cells that stand side by side, each in one piece, may be wider than a narrow terminal.
        assert len(line) <= max(columns, 80) and line == line.rstrip()


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_names_numbers_and_words_are_never_broken(columns):
    words = set(listed("tasks", columns=1000).split())
    assert set(listed("tasks", columns=columns).split()) == words


words = st.sampled_from(["a", "12", "figure", "7", "one-of-our-own", "(arXiv", "0000.00000)", "x" * 30])
cells = st.lists(words, min_size=1, max_size=7).map(" ".join)


@given(st.lists(st.tuples(cells, cells, cells), max_size=4), st.integers(1, 120), st.integers(0, 8))
def test_columns_keep_every_word_in_its_order(rows, width, indent):
    lines = in_columns(rows, width, indent)
    assert " ".join(lines).split() == " ".join(" ".join(row) for row in rows).split()
    for line in lines:
        assert line.startswith(" " * indent) and line == line.rstrip()


def test_a_number_stays_with_what_it_names():
    cells = [("jrt", "at most 3B tokens", "set disjointness (arXiv 2407.05483), figure 2")]
    assert in_columns(cells, 64) == [
        "jrt  at most 3B tokens  set disjointness (arXiv 2407.05483),",
        "                        figure 2",
    ]
    assert in_columns(cells, 59)[0] == "jrt  at most 3B tokens  set disjointness"


def test_columns_stand_below_each_other():
    lines = in_columns([("a", "one two three four"), ("bbb", "five")], 31, 2)
    assert lines == ["  a    one two three four", "  bbb  five"]
    assert in_columns([("name", "one two three four five six")], 30) == ["name  one two three four five", "      six"]
    assert in_columns([("a-name-that-takes-its-room", "one two")], 40) == ["a-name-that-takes-its-room", "    one two"]


@pytest.mark.parametrize(
    "count, text",
    [(0, "0"), (999, "999"), (1000, "1k"), (5_760_000, "5.76M"), (999_950, "1M"), (13_449_000_000, "13.4B")],
)
def test_counts_are_shown_in_three_figures(count, text):
    assert short(count) == text
