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


@pytest.mark.parametrize("name", NAMES)
def test_the_core_names_no_shipped_plugin(name: str) -> None:
    pattern = re.compile(rf"\b{re.escape(name).replace('-', '[-_ ]')}\b(?!_attention)", re.IGNORECASE)
    found = [path for path in CORE if pattern.search(path.read_text())]
    # The window of attention belongs to the decoder kit, whatever model uses it.
    if name == "sliding-window":
        found = [path for path in found if "nn" not in path.parts]
    assert found == []


def test_no_source_file_is_longer_than_one_idea() -> None:
    assert [path for path in CODE if len(path.read_text().splitlines()) > 400] == []


def test_every_announced_target_exists() -> None:
    for group in ("bench.models", "bench.tasks", "bench.kernels"):
        for point in entry_points(group=group):
            assert point.load() is not None
