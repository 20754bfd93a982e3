"""Text on its way out into a spreadsheet or a figure: nothing of it is computed, or set as mathematics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqbench.store.files import write_atomically
from seqbench.surroundings.visible import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What spreadsheets take for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@")


def spreadsheet_cell(value: Any) -> Any:
    """A cell of a file that a spreadsheet may open; words that would be computed begin with an apostrophe."""
    if not isinstance(value, str):
        return value
    return f"'{visible(value)}" if value.lstrip().startswith(_FORMULA) else visible(value)


def save_figure(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write a figure as its suffix says, the same bytes for the same content."""
    import matplotlib
    from matplotlib.text import Text

    ticks = {id(label) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in _labels(axis)}
    for text in figure.findobj(Text):
        # Numbers on a logarithmic axis are set as mathematics, and are ours.
        if isinstance(text, Text) and id(text) not in ticks:
            text.set_text(visible(text.get_text()))
            text.set_parse_math(False)
    # Without a date and with a fixed salt the same results make the same file.
    with matplotlib.rc_context({"svg.hashsalt": "seqbench"}):
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=dpi, metadata=metadata))


def _labels(axis: Any) -> list[Any]:
    return [*axis.get_ticklabels(which="both"), axis.get_offset_text()]
