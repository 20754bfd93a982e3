"""Result tables for the terminal."""

from collections.abc import Callable, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from seqbench.contracts import LOOKBACK
from seqbench.report.results import Curve, Result, by_model, complete, label_of, overall, primary_curves
from seqbench.statistics import Summary, summarise
from seqbench.training.progress import duration


def run_report(result: Result) -> RenderableType:
    """Everything worth seeing of one run: a line of facts, all measurements, notes and confounds."""
    if result["status"] != "complete":
        return Text(failure_line(result), style="bold red")
    return Group(
        _facts_table([result]),
        _measurements_table(result),
        *_notes([result]),
        *_confounds([result]),
    )


def comparison_report(results: Sequence[Result]) -> RenderableType:
    """Models side by side: the primary metric by its coordinate as mean and spread over seeds, then facts."""
    parts: list[RenderableType] = []
    if complete(results):
        parts += [_side_by_side(results), *_legend(results), _facts_table(results)]
        parts += [*_notes(results), *_confounds(results)]
    parts += [Text(failure_line(result), style="bold red") for result in results if result["status"] != "complete"]
    return Group(*parts)


def failure_line(result: Result) -> str:
    """A failed run in one line."""
    failure = result["failure"]
    return f"{label_of(result)}, seed {result['seed']}: failed ({failure['reason']}): {failure['message']}"


def _side_by_side(results: Sequence[Result]) -> Table:
    task = results[0]["task"]
    curves = primary_curves(results)
    seeds = max((len(values) for curve in curves for values in curve.points.values()), default=0)
    spread = ", mean ± standard deviation over seeds" if seeds > 1 else ""
    table = Table(
        title=f"{task['name']}: {words(task['primary_metric'])} by {words(task['primary_coordinate'])}{spread}",
        box=box.SIMPLE_HEAD,
        title_justify="left",
    )
    # Folded, not cut: names that differ at their end stay apart in a narrow terminal.
    table.add_column(words(task["primary_coordinate"]), justify="right", overflow="fold")
    for curve in curves:
        table.add_column(curve.label, justify="right", overflow="fold")
    if task["primary_coordinate"] == LOOKBACK:
        table.add_row("attention reach", *[_reach(curve.reach) for curve in curves], style="dim", end_section=True)
    for place in sorted({place for curve in curves for place in curve.points}):
        table.add_row(_coordinate(place), *[_cell(curve, place, task) for curve in curves])
    return table


def _cell(curve: Curve, place: float, task: dict[str, Any]) -> str:
    summary = curve.summary(place)
    if summary is None:
        return "-"
    beyond = task["primary_coordinate"] == LOOKBACK and curve.reach is not None and place > curve.reach
    return f"{_with_spread(summary)} *" if beyond else _with_spread(summary)


def _legend(results: Sequence[Result]) -> list[Text]:
    marked = any(result["attention_reach"] is not None for result in complete(results))
    if not marked or results[0]["task"]["primary_coordinate"] != LOOKBACK:
        return []
    return [Text("* beyond the reach of the model's attention")]


def _facts_table(results: Sequence[Result]) -> Table:
    """What a model is and what it cost, a column per model."""
    task = results[0]["task"]
    groups = by_model(complete(results))
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    for label in groups:
        table.add_column(label, justify="right", overflow="fold")
    for heading, describe in _FACTS.items():
        table.add_row(heading, *[describe(group[0]) for group in groups.values()])
    table.add_row("training time", *[duration(_mean(group, "seconds")) for group in groups.values()])
    table.add_row(f"{words(task['primary_metric'])}, all", *map(_overall, groups.values()), style="bold")
    return table


def _state(result: Result) -> str:
    length, size = next(iter(result["state_bytes"].items()))
    return f"{size / 1024:,.1f} KiB at {int(length):,}"


_FACTS: dict[str, Callable[[Result], str]] = {
    "parameters": lambda result: f"{result['parameters_total']:,}",
    "  non-embedding": lambda result: f"{result['parameters_non_embedding']:,}",
    "training FLOPs/token": lambda result: f"{result['flops']['training_per_token']:.3g}",
    "state at tokens": _state,
    "attention reach": lambda result: _reach(result["attention_reach"]),
    "tokens trained": lambda result: f"{result['tokens']:,}",
}


def _mean(group: Sequence[Result], key: str) -> float:
    return summarise([result[key] for result in group]).mean


def _overall(group: Sequence[Result]) -> str:
    values = [value for value in map(overall, group) if value is not None]
    if not values:
        return "-"
    summary = summarise(values)
    return _with_spread(summary) if summary.deviation is None else f"{_with_spread(summary)} ({summary.seeds} seeds)"


def _with_spread(summary: Summary) -> str:
    return f"{summary.mean:.3f}" if summary.deviation is None else f"{summary.mean:.3f} ± {summary.deviation:.3f}"


def _measurements_table(result: Result) -> Table:
    """One row per set of coordinates, one column per metric."""
    rows: dict[tuple[tuple[str, Any], ...], dict[str, dict[str, Any]]] = {}
    for measurement in result["measurements"]:
        place = tuple(measurement["coordinates"].items())
        rows.setdefault(place, {})[measurement["metric"]] = measurement
    coordinates = list(dict.fromkeys(name for place in rows for name, _ in place))
    metrics = list(dict.fromkeys(measurement["metric"] for measurement in result["measurements"]))
    title = "test set; in brackets how many items stand behind a figure"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for name in [*coordinates, *metrics]:
        table.add_column(words(name), justify="right", overflow="fold")
    for place, values in rows.items():
        known = dict(place)
        cells = [_coordinate(known[name]) if name in known else "all" for name in coordinates]
        table.add_row(*cells, *[_measured(values[metric]) if metric in values else "-" for metric in metrics])
    return table


def _measured(measurement: dict[str, Any]) -> str:
    value = measurement["value"]
    return f"{'not finite' if value is None else format(value, '.3f')} ({measurement['n']:,})"


def _notes(results: Sequence[Result]) -> list[Text]:
    """What the task says of the result; of several models, what holds for all of them."""
    lists = [result["notes"] for result in complete(results)]
    return [Text(line) for line in lists[0] if all(line in lines for lines in lists)]


def _confounds(results: Sequence[Result]) -> list[Text]:
    """Each confound once where all models agree, by model where they differ."""
    groups = {label: group[0]["confounds"] for label, group in by_model(complete(results)).items()}
    lines = []
    for name in dict.fromkeys(name for confounds in groups.values() for name in confounds):
        values = {label: confounds.get(name, "-") for label, confounds in groups.items()}
        if len(set(values.values())) == 1:
            lines.append(f"{name}: {next(iter(values.values()))}")
        else:
            lines.append(f"{name}: " + "; ".join(f"{label}: {value}" for label, value in values.items()))
    return [Text(line, style="dim") for line in lines]


def _coordinate(value: Any) -> str:
    return "unbounded" if value is None else f"{value}"


def _reach(reach: int | None) -> str:
    return "unbounded" if reach is None else f"{reach:,}"


def words(name: str) -> str:
    """A metric's or coordinate's name as people read it."""
    return name.replace("_", " ")
