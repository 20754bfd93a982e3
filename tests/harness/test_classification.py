"""What models say of their kind: refused where it is wrong, shown, and filtered by without asking them again."""

import json

import pytest
from announced_package import announce_package
from click.testing import CliRunner

from seqbench.cli.listing import list_plugins
from seqbench.cli.show import show
from seqbench.contracts import Classification

MODELS = """\
from right_model import Right
from seqbench.contracts import Classification

class Matrix(Right):
    classification = Classification("2412.06464", 2024, memory=("matrix",), written=("decay", "delta"))

class Mixed(Right):
    classification = Classification(year=1997, memory=("window", "matrix"), written=("route",))

class Silent(Right):
    pass
"""


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    announced = "".join(f"kind-{name.lower()} = models_of_kinds:{name}\n" for name in ("Matrix", "Mixed", "Silent"))
    announce_package(tmp_path, "kinds", f"[bench.models]\n{announced}kind-broken = models_of_kinds:Nothing\n")
    (tmp_path / "models_of_kinds.py").write_text(MODELS)
    monkeypatch.syspath_prepend(str(tmp_path))


def listed(*arguments: str) -> set[str]:
    outcome = CliRunner().invoke(list_plugins, ("models", *arguments, "--json"))
    assert outcome.exit_code == 0, outcome.output
    return {row["name"] for row in json.loads(outcome.stdout) if row["name"].startswith("kind-")}


def test_lists_hold_what_has_the_memory_and_the_rule_that_are_asked_for():
    assert listed() == {"kind-matrix", "kind-mixed", "kind-silent", "kind-broken"}
    assert listed("--memory", "matrix") == {"kind-matrix", "kind-mixed"}
    assert listed("--memory", "window") == {"kind-mixed"}
    assert listed("--written", "delta") == {"kind-matrix"}
    assert listed("--memory", "window", "--written", "delta") == set()


def test_a_row_says_all_of_it():
    outcome = CliRunner().invoke(list_plugins, ("models", "--written", "delta", "--json"))
    row = next(row for row in json.loads(outcome.stdout) if row["name"] == "kind-matrix")
    expected = {"paper": "2412.06464", "year": 2024, "memory": ["matrix"], "written": ["decay", "delta"]}
    assert row["classification"] == expected


def test_show_says_it_in_a_line():
    def shown(name: str) -> str:
        return " ".join(CliRunner().invoke(show, (name,)).stdout.split())

    assert "Memory matrix; written by decay, delta; arXiv 2412.06464; of 2024" in shown("kind-matrix")
    assert "model." in shown("kind-silent") and "Memory" not in shown("kind-silent")


@pytest.mark.parametrize(("arguments", "told"), [
    (("tasks", "--memory", "matrix"), "type bench list models"),
    (("--written", "delta"), "type bench list models"),
    (("models", "--memory", "heap"), "'heap' is not one of 'window', 'vector', 'matrix'"),
])  # fmt: skip
def test_what_cannot_be_filtered_by_is_refused(arguments, told):
    outcome = CliRunner().invoke(list_plugins, arguments)
    assert outcome.exit_code == 2 and told in outcome.output


@pytest.mark.parametrize(("wrong", "told"), [
    ({"memory": ("heap",)}, "memory is"),
    ({"memory": "matrix"}, "expected a tuple"),
    ({"memory": ("matrix", "matrix")}, "memory is"),
    ({"written": ("decay", "matrix")}, "written is"),
    ({"paper": "arXiv:2412.06464", "year": 2024}, "expected an arXiv id"),
    ({"paper": "2413.06464", "year": 2024}, "expected an arXiv id"),
    ({"paper": "2412.06464", "year": 2023}, "is of 2024"),
    ({"paper": "2412.06464"}, "is of 2024"),
])  # fmt: skip
def test_a_kind_that_there_is_not_is_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        Classification(**wrong)
