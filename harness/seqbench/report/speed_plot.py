"""Time and memory against length, as pictures."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from seqbench.report.outgoing import save_figure

# Models differ in colour and in mark, so that a print without colours can be read.
_MARKS = "osD^vPX<>p"
# Inches of a panel.
_WIDTH, _HEIGHT = 4.6, 3.6


def plot_speed(content: Mapping[str, Any], path: Path) -> bool:
    """Draw the content of speed.json of models into `path` (its suffix chooses the format); False with nothing to draw.

    A column for each mode; above, time per token with its quartiles, below, peak memory; both axes logarithmic.
    """
    cells = [cell for cell in content["cells"] if cell["seconds_per_unit"] and "length" in cell["place"]]
    if not cells:
        return False
    # Slow to import and needed nowhere else.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    modes = list(dict.fromkeys(cell["place"]["mode"] for cell in cells))
    names = list(dict.fromkeys(cell["name"] for cell in content["cells"]))
    figure = Figure(figsize=(_WIDTH * len(modes), 2 * _HEIGHT), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(modes), squeeze=False, sharex="col")
    for column, mode in enumerate(modes):
        for number, name in enumerate(names):
            line = [cell for cell in cells if cell["name"] == name and cell["place"]["mode"] == mode]
            look = {"color": f"C{number % 10}", "marker": _MARKS[number % 10], "markersize": 5, "linewidth": 1.6}
            _draw(panels[0][column], panels[1][column], line, look, name if column == 0 else None)
        _dress(panels[0][column], panels[1][column], mode, [cell["place"]["length"] for cell in cells])
    handles = {handle.get_label(): handle for handle in panels[0][0].get_legend_handles_labels()[0]}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    save_figure(figure, path)
    return True


def _draw(above: Any, below: Any, line: list[Mapping[str, Any]], look: dict[str, Any], label: str | None) -> None:
    lengths = [cell["place"]["length"] for cell in line]
    times = [cell["seconds_per_unit"] for cell in line]
    medians = [1e6 * time["median"] for time in times]
    reach = [
        [1e6 * (time["median"] - time["lower"]) for time in times],
        [1e6 * (time["upper"] - time["median"]) for time in times],
    ]
    above.errorbar(lengths, medians, yerr=reach, capsize=3, label=label, **look)
    below.plot(lengths, [cell["peak_bytes"] / 2**20 for cell in line], **look)


def between_powers(limits: tuple[float, float], value: float, _: int) -> str:
    """The label of a tick between two powers of ten: fewer of them, the more powers the axis shows."""
    powers = math.log10(limits[1] / limits[0])
    leading = round(value / 10 ** math.floor(math.log10(value)))
    shown = range(2, 10) if powers < 1 else (2, 5) if powers < 3 else ()
    return f"{value:,g}" if leading in shown else ""


def _dress(above: Any, below: Any, mode: str, lengths: list[int]) -> None:
    from matplotlib.ticker import FuncFormatter

    plain = FuncFormatter(lambda value, _: f"{value:,g}")
    for axes, what in ((above, "time per token (µs)"), (below, "peak memory (MiB)")):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(plain)
        axes.yaxis.set_minor_formatter(FuncFormatter(partial(between_powers, axes.get_ylim())))
        axes.set_ylabel(what)
        axes.grid(alpha=0.3, which="both")
    ticks = sorted(set(lengths))
    below.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=30)
    below.set_xlabel("position" if mode == "decode" else "length (tokens)")
    above.set_title(mode, fontsize=10)
