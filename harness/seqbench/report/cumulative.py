"""How the difference to one model adds up along the primary coordinate, item by item: a table, a plot, plain data."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqbench.contracts import TaskPlugin
from seqbench.evaluating.measured import overall_measurement
from seqbench.report.document import Document, Line, Row, Sheet
from seqbench.report.item_scores import ItemsUnusable, read_items
from seqbench.report.outgoing import save_figure
from seqbench.report.results import Result, by_model, complete, shown_names, words
from seqbench.statistics.cumulative import CumulativeDifference, cumulative_differences
from seqbench.statistics.multiple import holm

# Of the part of comparison.json.
SCHEMA = 1


@dataclass(frozen=True)
class ItemCurves:
    """Scores of a run's test items along the primary coordinate.

    Attributes:
        index: (items,) place in the test set, ascending.
        places: (places,) on the coordinate, ascending.
        scores: (items, places) score of each item between the place before and this one.
        weights: (items, places) its weight; zero where an item does not reach.
    """

    index: NDArray[np.int64]
    places: tuple[float, ...]
    scores: NDArray[np.float64]
    weights: NDArray[np.float64]

    def same_items(self, other: "ItemCurves") -> bool:
        """Whether both are of the same items with the same places and weights."""
        same_axes = self.places == other.places and np.array_equal(self.index, other.index)
        return same_axes and np.array_equal(self.weights, other.weights)


@dataclass(frozen=True)
class CumulativeCurve:
    """One model minus another over everything up to each place, averaged over the seeds that both have.

    Attributes:
        model, minus: their labels.
        seeds: those that both have.
        differences: by place.
        p_value: at the last place, after Holm's correction over all models that are compared with `minus`.
    """

    model: str
    minus: str
    seeds: tuple[int, ...]
    differences: tuple[CumulativeDifference, ...]
    p_value: float

    @property
    def word(self) -> str:
        """What can be said at the last place; see `CumulativeDifference.word`."""
        return self.differences[-1].word(self.p_value)


# The curves of a complete result; None when its task has none. Raises ItemsUnusable when its items cannot be read.
ReadCurves = Callable[[Result], ItemCurves | None]


def read_item_curves(task: TaskPlugin[Any], path: Path) -> ItemCurves | None:
    """The curves of the items in the file `path`; None when the task has none.

    Raises ItemsUnusable when the file is missing, or the task cannot make a curve of an item.
    """
    items = read_items(path)
    try:
        curves = {item["index"]: list(task.item_curve(item)) for item in items}
        places = sorted({place for curve in curves.values() for place, _, _ in curve})
        if not places:
            return None
        index = np.array(sorted(curves))
        scores, weights = np.zeros((2, len(index), len(places)))
        for row, number in enumerate(index.tolist()):
            for place, score, weight in curves[number]:
                column = places.index(place)
                scores[row, column], weights[row, column] = score, weight
    except Exception as error:
        # A task is a stranger's code; the rest of the comparison stands without it.
        raise ItemsUnusable(f"the task makes no curve of its items ({type(error).__name__}: {error})") from error
    return ItemCurves(index, tuple(places), scores, weights)


def cumulative_curves(results: Sequence[Result], read_curves: ReadCurves) -> list[CumulativeCurve]:
    """Every other model minus the first one, where both have the same items; none for tasks without curves."""
    groups = by_model(complete(results))
    read = {label: _read(group, read_curves) for label, group in groups.items()}
    (minus, reference), *others = read.items() if read else [("", {})]
    found = []
    for label, curves in others:
        seeds = tuple(sorted(curves.keys() & reference.keys()))
        pairs = [(curves[seed], reference[seed]) for seed in seeds]
        if pairs and all(pairs[0][0].same_items(one) for pair in pairs for one in pair):
            ours, theirs = (np.mean([pair[number].scores for pair in pairs], axis=0) for number in (0, 1))
            known = pairs[0][0]
            differences = cumulative_differences(ours, theirs, known.weights, known.places)
            if differences:
                p_value = differences[-1].comparison.p_value
                found.append(CumulativeCurve(label, minus, seeds, tuple(differences), p_value))
    adjusted = holm([curve.p_value for curve in found])
    return [dataclasses.replace(curve, p_value=p_value) for curve, p_value in zip(found, adjusted, strict=True)]


def with_cumulative(document: Document, results: Sequence[Result], curves: Sequence[CumulativeCurve]) -> Document:
    """`document`, followed by the curves where there are any."""
    if not curves:
        return document
    parts = [*document.parts, *cumulative_parts(results, curves)]
    return Document(parts, {**document.data, "cumulative": plain_cumulative(curves)})


def cumulative_parts(results: Sequence[Result], curves: Sequence[CumulativeCurve]) -> list[Sheet | Line]:
    """A table with a row a place and a column a model, and what the last row says in words."""
    if not curves:
        return []
    task, names = results[0]["task"], shown_names(results)
    metric, coordinate = words(task["primary_metric"]), words(task["primary_coordinate"])
    places = [difference.place for difference in curves[0].differences]
    at = [{difference.place: difference for difference in curve.differences} for curve in curves]
    rows = [Row((f"{place:,.10g}", *(_cell(known.get(place)) for known in at))) for place in places]
    title = (
        f"{metric} over everything up to each {coordinate}, minus {names[curves[0].minus]}; 95 % interval over items"
    )
    sheet = Sheet(title, (f"up to {coordinate}", *(names[curve.model] for curve in curves)), rows, left=())
    return [sheet, *(Line(_sentence(curve, metric, coordinate, _unit(results))) for curve in curves)]


def plain_cumulative(curves: Sequence[CumulativeCurve]) -> dict[str, Any]:
    """The curves as plain data, for comparison.json."""
    return {"schema": SCHEMA, "curves": [_plain(curve) for curve in curves]}


def plot_cumulative(results: Sequence[Result], curves: Sequence[CumulativeCurve], path: Path) -> bool:
    """Draw the sums of the differences over the coordinate with their intervals; False when there is nothing to draw.

    The suffix of `path` chooses the format.
    """
    if not curves:
        return False
    # Slow to import and needed nowhere else.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    task, names = results[0]["task"], shown_names(results)
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, curve in enumerate(curves):
        _draw(axes, curve, f"C{number % 10}", names[curve.model])
    axes.axhline(0, color="0.4", linewidth=1)
    axes.set_xlabel(words(task["primary_coordinate"]))
    axes.set_ylabel(f"sum of the differences up to there\n({_unit(results)} x weight, mean over items)")
    title = f"{task['name']}: {words(task['primary_metric'])}, cumulative difference to {names[curves[0].minus]}"
    axes.set_title(f"{title}\nband: 95 % interval over items, which speaks of these trained models", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9, frameon=False)
    save_figure(figure, path)
    return True


def _read(group: Sequence[Result], read_curves: ReadCurves) -> dict[int, ItemCurves]:
    """Seed -> curves, where they can be read."""
    found = {}
    for result in group:
        try:
            curves = read_curves(result)
        except ItemsUnusable:
            # The comparison by item says which, and why.
            continue
        if curves is not None:
            found[result["seed"]] = curves
    return found


def _draw(axes: Any, curve: CumulativeCurve, colour: str, name: str) -> None:
    # Before the first item begins nothing has added up.
    places = [0.0, *(difference.place for difference in curve.differences)]
    totals = [0.0, *(difference.total for difference in curve.differences)]
    lows, highs = zip((0.0, 0.0), *(difference.total_interval for difference in curve.differences), strict=True)
    axes.plot(places, totals, color=colour, marker="o", markersize=3, linewidth=1.6, label=name)
    axes.fill_between(places, lows, highs, color=colour, alpha=0.15, linewidth=0)


def _unit(results: Sequence[Result]) -> str:
    measurement = next(filter(None, map(overall_measurement, complete(results))), None)
    return results[0]["task"]["primary_metric"] if measurement is None else measurement["unit"]


def _cell(difference: CumulativeDifference | None) -> str:
    if difference is None:
        return "-"
    low, high = difference.comparison.interval
    return f"{difference.comparison.difference:+z.4f} [{low:+z.4f}, {high:+z.4f}]"


def _sentence(curve: CumulativeCurve, metric: str, coordinate: str, unit: str) -> str:
    last = curve.differences[-1]
    what = f"{metric} is {curve.word}" if curve.word in ("higher", "lower") else curve.word
    said = f"{_cell(last)} {unit}, p {curve.p_value:.2g} (Holm)"
    items = f"{last.comparison.items} items; differences of about {last.measurable:.2g} can be seen"
    return f"{curve.model} against {curve.minus} up to {coordinate} {last.place:,.10g}: {what} ({said}, {items})"


def _plain(curve: CumulativeCurve) -> Mapping[str, Any]:
    return {
        "model": curve.model,
        "minus": curve.minus,
        "seeds": list(curve.seeds),
        "word": curve.word,
        "p_value": curve.p_value,
        "places": [{**dataclasses.asdict(each), "total": each.total} for each in curve.differences],
    }
