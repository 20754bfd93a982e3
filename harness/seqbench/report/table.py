"""Result tables for the terminal."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from seqbench.contracts import LOOKBACK
from seqbench.report.results import Curve, Result, by_model, complete, label_of, overall, primary_curves
from seqbench.statistics import summarise
from seqbench.training.progress import duration


def run_report(result: Result) -> RenderableType:
    """Everything worth seeing of one run: a line of facts, all measurements, notes and confounds."""
    if result["status"] != "complete":
        return Text(failure_line(result), style="bold red")
    return Group(
        _models_table([result]),
        _measurements_table(result),
        *_notes([result]),
        *_confounds([result]),
    )


def comparison_report(results: Sequence[Result]) -> RenderableType:
    """Models side by side: the primary metric by its coordinate as mean and spread over seeds, then facts."""
    parts: list[RenderableType] = []
    if complete(results):
        parts += [_side_by_side(results), _models_table(results), *_notes(results), *_confounds(results)]
    parts += [Text(failure_line(result), style="bold red") for result in results if result["status"] != "complete"]
    return Group(*parts)


def failure_line(result: Result) -> str:
    """A failed run in one line."""
    failure = result["failure"]
    return f"{label_of(result)}, seed {result['seed']}: failed ({failure['reason']}): {failure['message']}"


def _side_by_side(results: Sequence[Result]) -> Table:
    task = results[0]["task"]
    curves = primary_curves(results)
    seeds = max(len(values) for curve in curves for values in curve.points.values())
    spread = ", mean ± standard deviation over seeds" if seeds > 1 else ""
    table = Table(
        title=f"{task['name']}: {_words(task['primary_metric'])} by {_words(task['primary_coordinate'])}{spread}",
        box=box.SIMPLE_HEAD,
        title_justify="left",
    )
    table.add_column(_words(task["primary_coordinate"]), justify="right")
    for curve in curves:
        table.add_column(curve.label, justify="right")
    if task["primary_coordinate"] == LOOKBACK:
        table.add_row("attention reach", *[_reach(curve.reach) for curve in curves], style="dim", end_section=True)
    for place in sorted({place for curve in curves for place in curve.points}):
        table.add_row(f"{place:g}", *[_cell(curve, place, task) for curve in curves])
    return table


def _cell(curve: Curve, place: float, task: dict[str, Any]) -> str:
    summary = curve.summary(place)
    if summary is None:
        return "-"
    mean = f"{summary.mean:.3f}" if summary.deviation is None else f"{summary.mean:.3f} ± {summary.deviation:.3f}"
    beyond = task["primary_coordinate"] == LOOKBACK and curve.reach is not None and place > curve.reach
    return f"{mean} *" if beyond else mean


def _models_table(results: Sequence[Result]) -> Table:
    task = results[0]["task"]
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("model", "parameters", "non-embedding", "training FLOPs/token", "state", "reach", "tokens", "time"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    table.add_column(f"{_words(task['primary_metric'])}, all", justify="right")
    for label, group in by_model(complete(results)).items():
        first = group[0]
        length, state = next(iter(first["state_bytes"].items()))
        table.add_row(
            label,
            f"{first['parameters_total']:,}",
            f"{first['parameters_non_embedding']:,}",
            f"{first['flops']['training_per_token']:.3g}",
            f"{state / 1024:,.1f} KiB at {int(length):,}",
            _reach(first["attention_reach"]),
            f"{first['tokens']:,}",
            duration(summarise([result["seconds"] for result in group]).mean),
            _overall(group),
        )
    return table


def _overall(group: Sequence[Result]) -> str:
    values = [value for value in map(overall, group) if value is not None]
    if not values:
        return "-"
    summary = summarise(values)
    if summary.deviation is None:
        return f"{summary.mean:.3f}"
    return f"{summary.mean:.3f} ± {summary.deviation:.3f} ({summary.seeds} seeds)"


def _measurements_table(result: Result) -> Table:
    """One row per set of coordinates, one column per metric."""
    rows: dict[tuple[tuple[str, Any], ...], dict[str, dict[str, Any]]] = {}
    for measurement in result["measurements"]:
        place = tuple(measurement["coordinates"].items())
        rows.setdefault(place, {})[measurement["metric"]] = measurement
    coordinates = list(dict.fromkeys(name for place in rows for name, _ in place))
    metrics = list(dict.fromkeys(measurement["metric"] for measurement in result["measurements"]))
    table = Table(box=box.SIMPLE_HEAD)
    for name in [*coordinates, *metrics]:
        table.add_column(_words(name), justify="right")
    for place, values in rows.items():
        known = dict(place)
        cells = [_coordinate(known[name]) if name in known else "all" for name in coordinates]
        table.add_row(*cells, *[_measured(values[metric]) if metric in values else "-" for metric in metrics])
    return table


def _measured(measurement: dict[str, Any]) -> str:
    value = measurement["value"]
    return f"{'not finite' if value is None else format(value, '.3f')}  (n {measurement['n']:,})"


def _notes(results: Sequence[Result]) -> list[Text]:
    lines = dict.fromkeys(line for result in complete(results) for line in result["notes"])
    return [Text(line) for line in lines]


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


def _words(name: str) -> str:
    return name.replace("_", " ")
