"""Panels that know nothing of what they show: series over steps as lines or as a map, curves over distance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, starmap
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from seqbench.report.training_log import Coordinates, Series

# More lines than this in one panel can no longer be told apart; they become the rows of a map.
LINES = 10
# More points than this on a line have no room for a marker each.
_MARKED_POINTS = 60
# A positive quantity whose largest value is this many times its smallest is shown on a logarithmic scale.
_LOGARITHMIC_RANGE = 8
# Decades of a map's colour scale; what lies farther below the largest value counts as the lowest.
_MAP_DECADES = 4
# Columns of a map; more would be narrower than a pixel.
_COLUMNS = 400
# Columns and rows of a map that can bear a label each.
_LABELLED_COLUMNS, _LABELLED_ROWS = 8, 64
_COLOURS = colormaps["viridis"]
_ZERO = "0.88"


@dataclass(frozen=True)
class Place:
    """One line or row, and how it is called.

    Attributes:
        coordinates: those that differ between the places of a panel.
        label: what tells it from the others of its panel.
    """

    coordinates: Coordinates
    label: str


def places_of(coordinates: Sequence[Coordinates]) -> list[Place]:
    """Labels from the coordinates that are not the same everywhere; a word stands for itself, a number has its name."""
    varying = [
        tuple(pair for pair in each if len(coordinates) > 1 and not all(pair in other for other in coordinates))
        for each in coordinates
    ]
    return [Place(each, ", ".join(starmap(_named, each)) or "all") for each in varying]


def draw_lines(axes: Any, series: Mapping[Coordinates, Series]) -> None:
    """One line over steps for each place."""
    places = places_of(list(series))
    for place, colour, each in zip(places, _colours(places), series.values(), strict=True):
        marker = {"marker": "o", "markersize": 3} if len(each.steps) <= _MARKED_POINTS else {}
        axes.plot(each.steps, each.values, color=colour, label=place.label, linewidth=1.3, **marker)
    scale_values(axes, [each.values for each in series.values()])
    finish_steps(axes)
    axes.set_xlim(0, None)
    if len(series) > 1:
        axes.legend(fontsize=7, ncols=1 + (len(series) > 5), frameon=False)


def draw_curves(axes: Any, series: Mapping[Coordinates, Series], along: str) -> None:
    """The last value of each place over its coordinate `along`, one line for each combination of the others."""
    curves: dict[Coordinates, list[tuple[float, float]]] = {}
    for coordinates, each in series.items():
        others = tuple(pair for pair in coordinates if pair[0] != along)
        where = dict(coordinates)[along]
        if isinstance(where, int | float):
            curves.setdefault(others, []).append((where, each.values[-1]))
    places = places_of(list(curves))
    for place, colour, points in zip(places, _colours(places), curves.values(), strict=True):
        x, y = zip(*sorted(points), strict=True)
        axes.plot(x, y, color=colour, label=place.label, marker="o", markersize=2.5, linewidth=1.3)
    distances = np.array([x for points in curves.values() for x, _ in points], dtype=np.float64)
    if distances.min() > 0 and _spans(distances):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    scale_values(axes, [np.array([y for _, y in points]) for points in curves.values()])
    axes.set_xlabel(along.replace("_", " "))
    if len(curves) > 1:
        axes.legend(fontsize=7, frameon=False)


def draw_map(axes: Any, series: Mapping[Coordinates, Series]) -> None:
    """Rows are places, columns are steps, the first place on top."""
    steps, values = _table(list(series.values()))
    norm, zeros = None, False
    if _spans(values) and not np.any(values < 0):
        highest = float(np.nanmax(values))
        lowest = max(float(values[values > 0].min()), highest * 10.0**-_MAP_DECADES)
        norm = LogNorm(lowest, highest)
        # Zero has no logarithm: it is what lies under the scale, in a colour of its own, and nothing else does.
        zeros = bool(np.any(values == 0))
        values = np.where(values > 0, np.maximum(values, lowest), np.where(values == 0, lowest / 10, np.nan))
    rows = np.arange(len(series) + 1) - 0.5
    colours = _COLOURS.with_extremes(under=_ZERO)
    mesh = axes.pcolormesh(_edges(steps), rows, values, norm=norm, cmap=colours, rasterized=True)
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.02, aspect=30, extend="min" if zeros else "neither", format="%g")
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
    if zeros:
        bar.ax.set_xlabel("zero", fontsize=7, labelpad=14)
    axes.invert_yaxis()
    _label_rows(axes, places_of(list(series)))
    finish_steps(axes)
    if len(steps) <= _LABELLED_COLUMNS:
        axes.set_xticks(steps)
    axes.grid(False)


def scale_values(axes: Any, values: Sequence[NDArray[np.float64]]) -> None:
    """A logarithmic axis of values where they span a wide range and are all positive."""
    together = np.concatenate(list(values))
    if np.all(together[np.isfinite(together)] > 0) and _spans(together):
        axes.set_yscale("log")
        finite = together[np.isfinite(together)]
        within_two_decades = finite.max() < 100 * finite.min()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if within_two_decades else (1,)))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_locator(NullLocator())


def finish_steps(axes: Any) -> None:
    """Label and whole numbers for an axis of steps."""
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _spans(values: NDArray[np.float64]) -> bool:
    positive = values[np.isfinite(values) & (values > 0)]
    return positive.size > 0 and bool(positive.max() > _LOGARITHMIC_RANGE * positive.min())


def _table(series: Sequence[Series]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """All series over the union of their steps, thinned to what can be seen; NaN where one has no value."""
    steps = np.unique(np.concatenate([each.steps for each in series]))
    steps = steps[:: -(-len(steps) // _COLUMNS)]
    values = np.full((len(series), len(steps)), np.nan)
    for row, each in enumerate(series):
        kept = np.isin(each.steps, steps)
        values[row, np.searchsorted(steps, each.steps[kept])] = each.values[kept]
    return steps, values


def _edges(steps: NDArray[np.int64]) -> NDArray[np.float64]:
    """Borders of columns that are centred on the steps, as far as these are even."""
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    middles = (steps[1:] + steps[:-1]) / 2
    return np.array([2 * steps[0] - middles[0], *middles, 2 * steps[-1] - middles[-1]])


def _label_rows(axes: Any, places: Sequence[Place]) -> None:
    """Rows that share their first coordinate make a block with one label; other rows have a label each."""
    first = [place.coordinates[:1] for place in places]
    names = {tuple(name for name, _ in place.coordinates) for place in places}
    if len(names) > 1 or len(places[0].coordinates) < 2 or len(set(first)) == len(places):
        every = -(-len(places) // _LABELLED_ROWS)
        axes.set_yticks(range(0, len(places), every), [place.label for place in places[::every]])
        axes.tick_params(axis="y", labelsize=7 if len(places) <= _LABELLED_ROWS // 2 else 5)
        return
    start, ticks = 0, {}
    for ((name, value),), rows in groupby(first):
        size = len(list(rows))
        ticks[start + (size - 1) / 2] = _named(name, value)
        if start:
            axes.axhline(start - 0.5, color="white", linewidth=1.5)
        start += size
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.tick_params(axis="y", labelsize=7, length=0)
    axes.set_ylabel(", ".join(name for name, _ in places[0].coordinates[1:]).replace("_", " "), fontsize=8)


def _named(name: str, value: int | float | str | None) -> str:
    if isinstance(value, str):
        return value
    return f"{name.replace('_', ' ')} {'unbounded' if value is None else value}"


def _colours(places: Sequence[Place]) -> list[Any]:
    """From dark to light for numbers, which have an order; apart from each other for words."""
    if len(places) == 1 or any(isinstance(value, str) for place in places for _, value in place.coordinates):
        return [f"C{number}" for number in range(len(places))]
    return list(_COLOURS(np.linspace(0.0, 0.88, len(places))))
