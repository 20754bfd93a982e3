"""What each part of a model is worth: the whole model and its ablations, one row each."""

from collections.abc import Sequence

from seqbench.evaluating.measured import overall
from seqbench.report.contamination import contamination_notes
from seqbench.report.document import Document, Line, Row, Sheet
from seqbench.report.item_scores import ItemPairs, ReadItems
from seqbench.report.results import Curve, Result, complete, label_of, primary_curves, shown_names, words
from seqbench.report.soundness import soundness_notes
from seqbench.report.table import failure_line
from seqbench.report.verdict_table import difference


def ablation_report(results: Sequence[Result], read_items: ReadItems) -> Document:
    """The primary metric of every variant of one model, overall and by its coordinate; the first result is the whole.

    Ablations at evaluation alone carry "@eval" in their name.
    """
    parts: list[Sheet | Line] = []
    if complete(results):
        items = ItemPairs(results, read_items)
        parts.append(_sheet(results, items))
        parts.append(
            Line(
                "@eval: trained whole, tested without the part. change: from the whole model, one seed;"
                " in brackets the 95 % interval over test items, which speaks of these trained models alone"
            )
        )
        parts += [*contamination_notes(results), *soundness_notes(results)]
        parts += [Line(remark, "yellow") for remark in items.remarks()]
    parts += [Line(failure_line(result), "bold red") for result in results if result["status"] != "complete"]
    return Document(parts)


def _sheet(results: Sequence[Result], items: ItemPairs) -> Sheet:
    task = results[0]["task"]
    curves = {curve.label: curve for curve in primary_curves(results)}
    places = sorted({place for curve in curves.values() for place in curve.points})
    metric, coordinate = words(task["primary_metric"]), words(task["primary_coordinate"])
    names = shown_names(results)
    rows = []
    for result in complete(results):
        # The model's name is in the first row; in the others it would say nothing.
        name = names[label_of(result)].replace(label_of(result), result["model"]["ablation"] or label_of(result))
        figures = (f"{result['parameters_total']:,}", *_overall_and_change(result, results[0], items))
        rows.append(Row((name, *figures, *(_cell(curves[label_of(result)], place) for place in places))))
    title = f"{task['name']}: {metric}, overall and by {coordinate}; seed {results[0]['seed']}"
    return Sheet(title, ("", "parameters", "overall", "change", *map(str, places)), rows)


def _overall_and_change(result: Result, whole: Result, items: ItemPairs) -> tuple[str, str]:
    value, before = overall(result), overall(whole)
    if value is None:
        return "-", "-"
    if before is None or result is whole:
        return f"{value:.4f}", "-"
    compared = items.compare(label_of(result), label_of(whole), [result["seed"]])
    return f"{value:.4f}", difference(value - before, compared.interval if compared else None)


def _cell(curve: Curve, place: float) -> str:
    summary = curve.summary(place)
    return "-" if summary is None else f"{summary.mean:.3f}"
