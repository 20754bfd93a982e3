"""The rooms of the house: what the core may not know, and what a file may hold."""

import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = sorted((ROOT / "harness").rglob("*.py"))
CODE = [
    path
    for room in ("harness", "pmnet_plugin", "baselines", "tasks", "kernels")
    for path in (ROOT / room).rglob("*.py")
]

# "transformer" is also a library and "hf" a syllable; the others can only mean the plugin.
NAMES = sorted(
    point.name
    for group in ("bench.models", "bench.tasks")
    for point in entry_points(group=group)
    if point.name not in ("transformer", "hf")
)

# lm-eval loads what it finds in such a folder by path.
LOADED_BY_LM_EVAL = {ROOT / "tasks" / "seqbench_tasks" / "lm_eval_suites" / "tiny"}


@pytest.mark.parametrize("name", NAMES)
def test_the_core_names_no_shipped_plugin(name: str) -> None:
    # Classes of torch may be called like a model that is made of them.
    pattern = re.compile(rf"(?<!nn\.)\b{re.escape(name).replace('-', '[-_ ]')}\b(?!_attention)", re.IGNORECASE)
    found = [path for path in CORE if pattern.search(path.read_text())]
    # The window of attention belongs to the decoder kit, whatever model uses it.
    if name == "sliding-window":
        found = [path for path in found if "nn" not in path.parts]
    assert found == []


def test_the_root_of_the_core_holds_rooms_and_what_every_floor_may_need() -> None:
    root = ROOT / "harness" / "seqbench"
    assert {path.stem for path in root.glob("*.py")} == {"__init__", "environment", "errors", "progress_display"}


def test_the_page_of_floors_names_every_room() -> None:
    drawing = (ROOT / "docs" / "architecture.md").read_text().partition("    cli")[2].partition("\n\n")[0]
    rooms = {path.parent.name for path in (ROOT / "harness" / "seqbench").glob("*/__init__.py")} - {"cli"}
    assert {room for room in rooms if not re.search(rf"\b{room}\b", drawing)} == set()


def test_no_folder_of_code_is_hidden_from_the_checks_of_imports() -> None:
    # What `bench new` copies is no code of a room.
    folders = {path.parent for path in CODE if "scaffold" not in path.parts and path.parents[1] != ROOT}
    assert {folder for folder in folders if not (folder / "__init__.py").exists()} == LOADED_BY_LM_EVAL


def test_no_source_file_is_longer_than_one_idea() -> None:
    assert [path for path in CODE if len(path.read_text().splitlines()) > 400] == []


def test_every_announced_target_exists() -> None:
    for group in ("bench.models", "bench.tasks", "bench.kernels"):
        for point in entry_points(group=group):
            assert point.load() is not None
