"""What each part of a model is worth: the whole model and its ablations, one row each."""

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from seqbench.report.results import Curve, Result, complete, label_of, overall, primary_curves
from seqbench.report.table import failure_line, words


def ablation_report(results: Sequence[Result]) -> RenderableType:
    """The primary metric of every variant of one model, overall and by its coordinate; the first result is the whole.

    Ablations at evaluation alone carry "@eval" in their name.
    """
    parts: list[RenderableType] = []
    if complete(results):
        parts.append(_table(results))
        parts.append(Text("@eval: trained whole, tested without the part. change: from the whole model, one seed"))
    parts += [Text(failure_line(result), style="bold red") for result in results if result["status"] != "complete"]
    return Group(*parts)


def _table(results: Sequence[Result]) -> Table:
    task = results[0]["task"]
    curves = {curve.label: curve for curve in primary_curves(results)}
    places = sorted({place for curve in curves.values() for place in curve.points})
    metric, coordinate = words(task["primary_metric"]), words(task["primary_coordinate"])
    table = Table(
        title=f"{task['name']}: {metric}, overall and by {coordinate}; seed {results[0]['seed']}",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        padding=(0, 1, 0, 0),
    )
    table.add_column("", overflow="fold")
    for heading in ("parameters", "overall", "change", *(f"{place:g}" for place in places)):
        table.add_column(heading, justify="right", overflow="fold")
    whole = overall(results[0]) if results[0]["status"] == "complete" else None
    for result in complete(results):
        table.add_row(
            result["model"]["ablation"] or label_of(result),
            f"{result['parameters_total']:,}",
            *_overall_and_change(overall(result), whole),
            *(_cell(curves[label_of(result)], place) for place in places),
        )
    return table


def _overall_and_change(value: float | None, whole: float | None) -> tuple[str, str]:
    if value is None:
        return "-", "-"
    return f"{value:.4f}", "-" if whole is None else f"{value - whole:+.4f}"


def _cell(curve: Curve, place: float) -> str:
    summary = curve.summary(place)
    return "-" if summary is None else f"{summary.mean:.3f}"
