"""docs/add-a-model.md and docs/add-a-task.md are true: their code is what `bench new` writes, their commands work."""

import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from announced_package import announce_package
from click.testing import CliRunner, Result

from seqbench.cli.app import bench
from seqbench.contracts import ModelPlugin
from seqbench.mixers import Chunk, Mixer, MixerDecoderSettings, MixerPlugin
from seqbench.scaffold import KINDS, choose_names, render
from seqbench.testing import Report, examine_model_plugin, examine_task_plugin
from seqbench.testing.model.clauses import MODEL_CLAUSES
from seqbench.testing.task.clauses import TASK_CLAUSES

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"
PAGES = {kind: (DOCS / f"add-a-{kind}.md").read_text() for kind in KINDS}
NAMES = {kind: choose_names(kind, f"my-{kind}") for kind in KINDS}
CLAUSES = {"model": MODEL_CLAUSES, "task": TASK_CLAUSES}


def fenced(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """What the page says to type, a line that ends with a backslash together with the next."""
    shown = re.findall(r"^    ((?:bench|cd|pip) (?:.*\\\n)*.*)$", page, re.MULTILINE)
    return [shlex.split(command.replace("\\\n", "")) for command in shown]


def in_one_line(text: str) -> str:
    """Without line breaks and numbers, which differ between machines."""
    return re.sub(r"\d+", "0", " ".join(text.split()))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder; the modules that are imported from it are forgotten."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for names in NAMES.values():
        sys.modules.pop(names.module, None)


@pytest.mark.parametrize("kind", KINDS)
def test_the_python_of_a_page_is_the_file_that_bench_new_writes(kind: str) -> None:
    """Two empty lines stand before a definition, one before a method."""
    shown = ""
    for block in fenced(PAGES[kind], "python"):
        shown += ("\n" if block.startswith(" ") else "\n\n") + block
    names = NAMES[kind]
    assert shown.lstrip("\n") == render(names)[f"{names.module}.py"]


def test_an_excerpt_of_the_page_on_models_stands_in_code_that_is_tested() -> None:
    tested = [(TESTS.parent / "README.md").read_text(), (TESTS / "mixers" / "exceptional.py").read_text()]
    excerpts = fenced(PAGES["model"], "py")
    assert excerpts
    for excerpt in excerpts:
        assert any(excerpt in text for text in tested), excerpt


@pytest.mark.parametrize("offered", [Mixer, MixerPlugin, Chunk, MixerDecoderSettings, ModelPlugin])
def test_the_page_on_models_names_all_that_an_author_is_offered(offered: type) -> None:
    members = {name for name in vars(offered) | offered.__annotations__ if not name.startswith("_")}
    # Whole words: `reach` is not named by `attention_reach`.
    words = set(re.findall(r"\w+", PAGES["model"]))
    assert members <= words, members - words


@pytest.mark.parametrize("kind", KINDS)
def test_the_entry_point_of_a_page_is_the_one_that_bench_new_writes(kind: str) -> None:
    (shown,) = fenced(PAGES[kind], "toml")
    assert shown in render(NAMES[kind])["pyproject.toml"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_commands_of_a_page_are_accepted_in_their_order(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and comparisons as dry runs. The check is run where `bench new` is tested."""
    checked = installed = False
    for program, *arguments in commands(PAGES[kind]):
        if program == "cd":
            monkeypatch.chdir(arguments[0])
            # As the command does at its start.
            monkeypatch.syspath_prepend(str(Path.cwd()))
        elif program == "pip":
            assert arguments == ["install", "-e", "."]
            announce(kind, monkeypatch)
            installed = True
        elif arguments[0] == "check":
            assert arguments == ["check", NAMES[kind].dotted_path]
            checked = True
        else:
            dry = ["--dry-run"] if arguments[0] in ("run", "compare") else []
            outcome: Result = CliRunner().invoke(bench, [*arguments, *dry])
            assert outcome.exit_code == 0, (arguments, outcome.output)
            assert (f"my-{kind}" in outcome.output) or arguments[0] != "list"
    assert checked and installed


def announce(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `pip install -e .` leaves behind: the folder on the path, and its entry points."""
    ((group, declared),) = tomllib.loads(Path("pyproject.toml").read_text())["project"]["entry-points"].items()
    lines = [f"{name} = {target}" for name, target in declared.items()]
    announce_package(Path("site"), f"my_{kind}", "\n".join([f"[{group}]", *lines]))
    monkeypatch.syspath_prepend(str(Path("site").absolute()))
    assert f"my-{kind}" in entry_points(group=group).names


@pytest.mark.parametrize("kind", KINDS)
def test_the_mistake_on_a_page_fails_the_clauses_that_the_page_shows(
    kind: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = re.search(r"and the check ends with\n\n(.*?)\n\nand exit code 1", PAGES[kind], re.DOTALL)
    assert shown is not None
    told = re.search(r"(\d+) of (\d+) clauses fail: ([^;\n]*)", shown[1])
    assert told is not None
    failing = told[3].split(", ")
    assert (int(told[1]), int(told[2])) == (len(failing), len(CLAUSES[kind]))
    module = NAMES[kind].module
    (elsewhere / f"{module}.py").write_text(with_mistake(kind, render(NAMES[kind])[f"{module}.py"]))
    monkeypatch.syspath_prepend(str(elsewhere))
    report = examine(kind, failing)
    assert {outcome.clause for outcome in report.failures} == set(failing)
    for outcome in report.failures:
        assert in_one_line(f"{outcome.clause} failed {outcome.message}") in in_one_line(shown[1])


def with_mistake(kind: str, source: str) -> str:
    """`source` with the change that the page shows."""
    (difference,) = fenced(PAGES[kind], "diff")
    lines = difference.splitlines(keepends=True)
    removed = "".join(line[1:] for line in lines if line.startswith("-"))
    added = "".join(line[1:] for line in lines if line.startswith("+"))
    assert source.count(removed) == 1
    return source.replace(removed, added)


def examine(kind: str, clauses: list[str]) -> Report:
    function = examine_model_plugin if kind == "model" else examine_task_plugin
    return function(NAMES[kind].dotted_path, clauses=clauses)


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target
