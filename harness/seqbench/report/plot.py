"""The primary metric over its coordinate, with each model's attention reach marked."""

from collections.abc import Sequence
from pathlib import Path

from seqbench.contracts import LOOKBACK
from seqbench.report.results import Result, complete, primary_curves
from seqbench.store.files import write_atomically


def plot_results(results: Sequence[Result], path: Path) -> bool:
    """Draw all complete results into `path` (its suffix chooses the format); False when there is nothing to draw."""
    finished = complete(results)
    curves = [curve for curve in primary_curves(finished) if curve.points]
    if not curves:
        return False
    # Slow to import and needed nowhere else.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    task = finished[0]["task"]
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    reaches: dict[int, list[str]] = {}
    for number, curve in enumerate(curves):
        places = list(curve.points)
        summaries = [summary for place in places if (summary := curve.summary(place)) is not None]
        colour = f"C{number}"
        axes.plot(places, [summary.mean for summary in summaries], color=colour, label=curve.label)
        axes.fill_between(
            places,
            [summary.lowest for summary in summaries],
            [summary.highest for summary in summaries],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
        for place, values in curve.points.items():
            axes.plot([place] * len(values), values, "o", color=colour, markersize=3)
        if curve.reach is not None and task["primary_coordinate"] == LOOKBACK:
            reaches.setdefault(curve.reach, []).append(curve.label)
    for reach, labels in reaches.items():
        axes.axvline(reach, color="0.4", linestyle="--", linewidth=1)
        axes.annotate(
            f"attention reach {reach}: {', '.join(labels)}",
            (reach, 0.03),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            rotation=90,
            fontsize=8,
            color="0.4",
        )
    axes.set_xlabel(task["primary_coordinate"].replace("_", " ") + (" (tokens)" if reaches else ""))
    axes.set_ylabel(f"{task['primary_metric'].replace('_', ' ')} ({curves[0].unit})")
    if curves[0].unit == "fraction":
        axes.set_ylim(-0.02, 1.02)
    axes.set_title(f"{task['name']}: line = mean over seeds, dots = seeds, band = range", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend()
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=150))
    return True
