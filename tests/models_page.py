"""Writes docs/models.md from the installed plugins: `python tests/models_page.py`."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seqbench.contracts import ModelPlugin
from seqbench.plugins.registry import MODEL_GROUP, entry_points_of, find_model, takes_argument

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"
LENGTHS = {"1k": 1_000, "16k": 16_000}
HEAD = """# Models

Every installed architecture in its own words, made from the plugins by `python tests/models_page.py`; a test holds the
page to them. `bench show NAME` prints settings, presets and confounds besides, and `bench list models --memory matrix
--written delta` lists those of a kind.

State and FLOPs are of the preset `tiny` with a vocabulary of 384: what one sequence carries after 1,000 and 16,000
tokens, in fp32, and forward FLOPs per token of a sequence of that length (products of matrices, 2 per
multiply-accumulate; those inside the mask). Sizes differ between presets of one name; `--params` matches them.
"""


def page() -> str:
    """The page's text."""
    plugins = [plugin for name in sorted(entry_points_of(MODEL_GROUP)) if (plugin := _shown(name)) is not None]
    return "\n".join([HEAD, *_table(plugins), "", *(line for plugin in plugins for line in _section(plugin))])


def _shown(name: str) -> ModelPlugin[Any] | None:
    """The plugin; None for one that is named with an argument, of which there is no one size."""
    point = entry_points_of(MODEL_GROUP)[name][0]
    return None if takes_argument(point.load()) else find_model(name)


def _table(plugins: list[ModelPlugin[Any]]) -> Iterator[str]:
    headings = ["model", "memory", "written by", "year"]
    headings += [f"state, KiB at {length}" for length in LENGTHS] + [f"kFLOPs/token at {length}" for length in LENGTHS]
    yield f"| {' | '.join(headings)} |"
    yield "|---" * 4 + "|--:" * (len(headings) - 4) + "|"
    for plugin in plugins:
        kind, settings = plugin.classification, plugin.presets["tiny"]
        state = [f"{plugin.state_bytes(settings, length) / 1024:,.1f}" for length in LENGTHS.values()]
        flops = [f"{plugin.flops(settings, length).forward_total / length / 1000:,.0f}" for length in LENGTHS.values()]
        cells = [f"[{plugin.name}](#{plugin.name})", ", ".join(kind.memory) or "-", ", ".join(kind.written) or "-"]
        yield f"| {' | '.join([*cells, str(kind.year or '-'), *state, *flops])} |"


def _section(plugin: ModelPlugin[Any]) -> Iterator[str]:
    yield f"## {plugin.name}"
    yield ""
    yield plugin.summary[0].upper() + plugin.summary[1:] + "."
    yield ""
    words = plugin.classification.words()
    if words:
        yield f"{words}."
        yield ""
    # A formula begins with the name of what it says.
    yield inspect.cleandoc(type(plugin).__doc__ or "").replace("*", "\\*")
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page())
