"""The comparison as pictures: the primary metric over its coordinate, and over the whole test set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqbench.contracts import LOOKBACK
from seqbench.evaluating.measured import overall, overall_measurement
from seqbench.report.outgoing import save_figure
from seqbench.report.results import Curve, Result, absence, by_model, complete, primary_curves, shown_names, words
from seqbench.statistics.summary import Summary, summarise

# Models differ in colour and in mark, so that a print without colours can be read.
_MARKS = "osD^vPX<>p"
# Points on paper between the marks of neighbouring models at one place, and between the seeds of one model.
_MODEL_STEP, _SEED_STEP = 2.4, 3.0
# Ends of an axis of fractions: marks at 0 and 1 are whole.
_FRACTIONS = (-0.02, 1.02)
# How far an interval may widen an axis on either side, in ranges of all values: those of three seeds fit.
_INTERVAL_ROOM = 1.2
# Letters that fit beside each other under the panels.
_LEGEND_LETTERS = 120
# Places that span more than this ratio stand on a logarithmic axis.
_LOGARITHMIC_RANGE = 64


def plot_results(results: Sequence[Result], path: Path) -> bool:
    """Draw all complete results into `path` (its suffix chooses the format); False when there is nothing to draw.

    On the left the curves over the primary coordinate; on the right, when there are several models, the figure over
    the whole test set.
    """
    curves = [curve for curve in primary_curves(results) if curve.points]
    if not curves:
        return False
    # Slow to import and needed nowhere else.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    several = len(by_model(results)) > 1
    figure = Figure(figsize=(13 if several else 8, max(5.4, len(by_model(results)))), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 1 + several, squeeze=False, width_ratios=(5, 3)[: 1 + several])[0]
    looks = {label: (f"C{number % 10}", _MARKS[number % 10]) for number, label in enumerate(by_model(results))}
    _draw_curves(panels[0], results, curves, looks)
    if several:
        _draw_overall(panels[1], results, looks)
    longest = max(map(len, shown_names(results).values()))
    figure.legend(loc="outside lower center", ncols=max(1, _LEGEND_LETTERS // (longest + 8)), fontsize=9, frameon=False)
    save_figure(figure, path)
    return True


def _draw_curves(axes: Any, results: Sequence[Result], curves: Sequence[Curve], looks: dict[str, tuple]) -> None:
    task, names = results[0]["task"], shown_names(results)
    positions = _positions(axes, curves)
    reaches = {curve.reach for curve in curves}
    for number, curve in enumerate(curves):
        colour, mark = looks[curve.label]
        summaries = [summary for place in curve.points if (summary := curve.summary(place)) is not None]
        x = np.array([positions[place] for place in curve.points])
        means = np.array([summary.mean for summary in summaries])
        halves = np.array([summary.interval or 0.0 for summary in summaries])
        axes.plot(x, means, color=colour, linewidth=1.6)
        axes.plot([], [], f"-{mark}", color=colour, markersize=4, label=names[curve.label] + _reach(curve, reaches))
        axes.fill_between(x, means - halves, means + halves, color=colour, alpha=0.15, linewidth=0)
        beside = _shifted(axes, (number - (len(curves) - 1) / 2) * _MODEL_STEP)
        dots = [(positions[place], value) for place, values in curve.points.items() for value in values]
        axes.plot(*zip(*dots, strict=True), mark, color=colour, markersize=3, alpha=0.8, transform=beside)
    if task["primary_coordinate"] == LOOKBACK:
        _mark_reaches(axes, reaches)
    axes.set_xlabel(words(task["primary_coordinate"]) + (" (tokens)" if task["primary_coordinate"] == LOOKBACK else ""))
    axes.set_ylabel(f"{words(task['primary_metric'])} ({curves[0].unit})")
    everything = [summarise(values) for curve in curves for values in curve.points.values()]
    axes.set_ylim(*(_FRACTIONS if curves[0].unit == "fraction" else _limits(everything)))
    seeds = max(len(values) for curve in curves for values in curve.points.values())
    told = "line: mean over seeds, marks: seeds, band: 95 % interval of the mean" if seeds > 1 else "one seed"
    axes.set_title(f"{task['name']}\n{told}", fontsize=10)
    axes.grid(alpha=0.3)


def _positions(axes: Any, curves: Sequence[Curve]) -> dict[Any, float]:
    """Where each place stands on the horizontal axis: numbers where they are, words side by side."""
    from matplotlib.ticker import MaxNLocator

    places = list(dict.fromkeys(place for curve in curves for place in curve.points))
    if any(isinstance(place, str) for place in places):
        axes.set_xticks(range(len(places)), [str(place) for place in places])
        return {place: float(number) for number, place in enumerate(places)}
    if min(places) > 0 and max(places) > _LOGARITHMIC_RANGE * min(places):
        axes.set_xscale("log", base=2)
    elif all(isinstance(place, int) for place in places):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return {place: place for place in places}


def _shifted(axes: Any, points: float, vertically: bool = False) -> Any:
    """The axes' own coordinates, moved by points on paper."""
    from matplotlib.transforms import ScaledTranslation

    inches = points / 72
    x, y = (0, inches) if vertically else (inches, 0)
    return axes.transData + ScaledTranslation(x, y, axes.figure.dpi_scale_trans)


def _reach(curve: Curve, reaches: set[int | None]) -> str:
    """Which of the marked reaches is the model's, where they are not all the same."""
    return f", reach {curve.reach}" if len(reaches) > 1 and curve.reach is not None else ""


def _mark_reaches(axes: Any, reaches: set[int | None]) -> None:
    """A line at each finite reach."""
    for reach in reaches - {None}:
        axes.axvline(reach, color="0.4", linestyle="--", linewidth=1)
        axes.annotate(
            f"reach {reach}",
            (reach, 0.03),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            rotation=90,
            fontsize=8,
            color="0.4",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1},
        )


def _draw_overall(axes: Any, results: Sequence[Result], looks: dict[str, tuple]) -> None:
    """One row per model: its seeds, their mean and its interval."""
    task, names, groups = results[0]["task"], shown_names(results), by_model(results)
    figures = {label: _figures(group) for label, group in groups.items()}
    everything = [summarise(values) for values in figures.values() if values]
    for row, (label, values) in enumerate(figures.items()):
        colour, mark = looks[label]
        name = names[label] if values else f"{names[label]}: {_absence(groups[label])}"
        # Inside the panel, where a long name takes no room from it.
        axes.annotate(name, (0.015, row - 0.34), xycoords=("axes fraction", "data"), va="center", fontsize=9)
        if values:
            _draw_row(axes, row, values, summarise(values), colour, mark)
    axes.set_yticks([])
    axes.set_ylim(len(figures) - 0.4, -0.6)
    if everything:
        lowest, highest = _limits(everything)
        fraction = any(found["unit"] == "fraction" for result in results if (found := overall_measurement(result)))
        axes.set_xlim(*((max(lowest, _FRACTIONS[0]), min(highest, _FRACTIONS[1])) if fraction else (lowest, highest)))
    axes.set_title("over the whole test set\nmarks: seeds, bar: mean and its 95 % interval", fontsize=10)
    axes.set_xlabel(words(task["primary_metric"]))
    axes.grid(alpha=0.3, axis="x")


def _draw_row(axes: Any, row: int, values: Sequence[float], summary: Summary, colour: str, mark: str) -> None:
    for number, value in enumerate(values):
        beside = _shifted(axes, (number - (len(values) - 1) / 2) * _SEED_STEP - 10, vertically=True)
        axes.plot(value, row, mark, color=colour, markersize=4, alpha=0.8, transform=beside)
    axes.errorbar(summary.mean, row, xerr=summary.interval, fmt="|", color=colour, markersize=14, capsize=4)


def _absence(group: Sequence[Result]) -> str:
    return "no figure" if complete(group) else f"{absence(group)} with every seed"


def _figures(group: Sequence[Result]) -> list[float]:
    values = [overall(result) for result in complete(group)]
    return [value for value in values if value is not None and np.isfinite(value)]


def _limits(summaries: Sequence[Summary]) -> tuple[float, float]:
    """Room for values and intervals; an interval so long that the values would not stay apart is cut by the frame."""
    known = [summary for summary in summaries if np.isfinite(summary.mean)]
    if not known:
        return 0.0, 1.0
    lowest, highest = min(summary.lowest for summary in known), max(summary.highest for summary in known)
    span = (highest - lowest) or 0.1 * abs(highest) or 0.1
    below = min(summary.mean - (summary.interval or 0.0) for summary in known)
    above = max(summary.mean + (summary.interval or 0.0) for summary in known)
    margin, room = 0.05 * span, _INTERVAL_ROOM * span
    return min(lowest, max(lowest - room, below)) - margin, max(highest, min(highest + room, above)) + margin
