"""Result tables: one run, and several models side by side."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from seqbench.contracts import LOOKBACK
from seqbench.evaluating.measured import overall
from seqbench.report.circumstances import compile_notes, continuation_notes, path_notes
from seqbench.report.contamination import contamination_notes
from seqbench.report.document import Document, Line, Row, Sheet
from seqbench.report.item_scores import ReadItems
from seqbench.report.published import published_lines
from seqbench.report.results import (
    Curve,
    Result,
    absence,
    by_model,
    complete,
    label_of,
    parameter_budget,
    percent,
    primary_curves,
    reach_of,
    shown_names,
    training_budget,
    words,
)
from seqbench.report.soundness import soundness_notes
from seqbench.report.verdict_table import verdict_parts
from seqbench.report.verdicts import judge, plain
from seqbench.statistics.summary import Summary, summarise
from seqbench.training.progress import duration


def run_report(result: Result) -> Document:
    """Everything worth seeing of one run: a line of facts, all measurements, notes and confounds."""
    if result["status"] != "complete":
        return Document([Line(failure_line(result), "bold red")])
    parts: list[Sheet | Line] = [_facts_sheet([result]), _measurements_sheet(result), *published_lines(result)]
    parts += [
        *contamination_notes([result]),
        *compile_notes([result]),
        *continuation_notes([result]),
        *soundness_notes([result]),
    ]
    return Document([*parts, *_notes([result]), *_confounds([result])])


def comparison_report(results: Sequence[Result], read_items: ReadItems) -> Document:
    """Models side by side: the primary metric by its coordinate, facts, failures, and who is ahead.

    The document's data are the verdicts.
    """
    failures = [Line(failure_line(result), "bold red") for result in results if result["status"] != "complete"]
    if not complete(results):
        return Document(failures, {"verdicts": None})
    parts: list[Sheet | Line] = [_curves_sheet(results), *_legend(results), _facts_sheet(results)]
    parts += [*published_lines(complete(results)[0]), *contamination_notes(results)]
    parts += [*_hardware_notes(results), *path_notes(results), *compile_notes(results), *continuation_notes(results)]
    parts += [*soundness_notes(results), *_notes(results), *_confounds(results), *failures]
    judgement = judge(results, read_items)
    return Document([*parts, *verdict_parts(results, judgement)], {"verdicts": plain(results, judgement)})


def failure_line(result: Result) -> str:
    """A failed or unfinished run in one line."""
    failure = result["failure"]
    return f"{label_of(result)}, seed {result['seed']}: {result['status']} ({failure['reason']}): {failure['message']}"


def _curves_sheet(results: Sequence[Result]) -> Sheet:
    task = results[0]["task"]
    curves = {curve.label: curve for curve in primary_curves(results)}
    names = shown_names(results)
    absences = {label: absence(group) for label, group in by_model(results).items()}
    seeds = max((len(values) for curve in curves.values() for values in curve.points.values()), default=0)
    spread = ", mean ± half its 95 % interval over seeds" if seeds > 1 else ""
    rows = []
    if task["primary_coordinate"] == LOOKBACK:
        reaches = [_reach(curves[label].reach) if label in curves else absences[label] for label in names]
        rows.append(Row(("reach", *reaches), style="dim", ends_section=True))
    for place in sorted({place for curve in curves.values() for place in curve.points}):
        cells = [_cell(curves[label], place, task) if label in curves else absences[label] for label in names]
        rows.append(Row((_coordinate(place), *cells)))
    title = f"{task['name']}: {words(task['primary_metric'])} by {words(task['primary_coordinate'])}{spread}"
    return Sheet(title, (words(task["primary_coordinate"]), *names.values()), rows, left=())


def _cell(curve: Curve, place: float, task: dict[str, Any]) -> str:
    summary = curve.summary(place)
    if summary is None:
        return "-"
    beyond = task["primary_coordinate"] == LOOKBACK and curve.reach is not None and place > curve.reach
    return f"{_with_interval(summary)} *" if beyond else _with_interval(summary)


def _legend(results: Sequence[Result]) -> list[Line]:
    marked = any(reach_of(result) is not None for result in complete(results))
    if not marked or results[0]["task"]["primary_coordinate"] != LOOKBACK:
        return []
    return [Line("* beyond the reach of the model's attention or filters")]


def _facts_sheet(results: Sequence[Result]) -> Sheet:
    """What a model is and what it cost, a column per model; of a failed one what was known before."""
    groups = by_model(results)
    # What is known of a model is in its first complete run, or in the first of all.
    known = [(complete(group) or group)[0] for group in groups.values()]
    rows = [Row((heading, *map(describe, known))) for heading, describe in _FACTS.items()]
    rows[2:2] = [Row((heading, *cells)) for heading, cells in _matched(known)]
    rows.append(Row(("training budget", *map(_training_budget, known))))
    usual = _usual_hardware(results)
    rows.append(Row(("training time", *(_training_time(group, usual) for group in groups.values()))))
    if len(results) > 1:
        rows.append(Row(("runs complete", *map(_complete_runs, groups.values()))))
    metric = words(results[0]["task"]["primary_metric"])
    rows.append(Row((f"{metric}, all", *map(_overall, groups.values())), style="bold"))
    return Sheet("", ("", *shown_names(results).values()), rows, prose=(0,))


def _fact(key: str, describe: Callable[[Any], str]) -> Callable[[Result], str]:
    """How a result's field is shown; a run that failed early has none."""
    return lambda result: describe(result[key]) if key in result else "-"


def _state(sizes: dict[str, int]) -> str:
    length, size = next(iter(sizes.items()))
    return f"{size / 1024:,.1f} KiB at {int(length):,}"


def _reach(reach: int | None) -> str:
    return "unbounded" if reach is None else f"{reach:,}"


_FACTS: dict[str, Callable[[Result], str]] = {
    "parameters": _fact("parameters_total", "{:,}".format),
    "  non-embedding": _fact("parameters_non_embedding", "{:,}".format),
    "training FLOPs/token": _fact("flops", lambda flops: f"{flops['training_per_token']:.3g}"),
    "state at tokens": _fact("state_bytes", _state),
    "attention reach": _fact("attention_reach", _reach),
    "receptive field": _fact("receptive_field", _reach),
    "tokens trained": _fact("tokens", "{:,}".format),
    "training FLOPs": _fact("training_flops", "{:.3g}".format),
}


def _matched(results: Sequence[Result]) -> Iterator[tuple[str, list[str]]]:
    """For each count of parameters that was asked for: its name, then the target and the distance of each model."""
    budgets = [parameter_budget(result) for result in results]
    for kind in dict.fromkeys(budget["kind"] for budget in budgets if budget is not None):
        counted = kind.removeprefix("parameters").strip("-")
        yield (
            f"{counted} parameters matched to".strip(),
            [
                "-" if budget is None or budget["kind"] != kind else f"{budget['target']:,} ({_off(budget)})"
                for budget in budgets
            ],
        )


def _off(budget: dict[str, Any]) -> str:
    return percent(budget["deviation"])


def _training_budget(result: Result) -> str:
    """How long the model was to train, and how far from it training ended."""
    budget = training_budget(result)
    return "-" if budget is None else f"{budget['target']:,.10g} {budget['kind']} ({_off(budget)})"


def _training_time(group: Sequence[Result], usual: str | None) -> str:
    """The mean over seeds; marked where not all of them ran on the `usual` hardware of the comparison."""
    seconds = [result["seconds"] for result in complete(group)]
    if not seconds:
        return "-"
    hardware = {result.get("hardware") for result in complete(group)}
    mark = " (mixed hardware)" if len(hardware) > 1 else "" if hardware == {usual} else " (other hardware)"
    return duration(summarise(seconds).mean) + mark


def _usual_hardware(results: Sequence[Result]) -> str | None:
    """Where most of the runs were trained; None where all were trained on the same."""
    hardware = Counter(result.get("hardware") for result in complete(results))
    return hardware.most_common(1)[0][0] if hardware else None


def _hardware_notes(results: Sequence[Result]) -> list[Line]:
    """Which run was trained where, when that is not the same for all: then their times do not compare."""
    runs: dict[str, list[str]] = defaultdict(list)
    for result in complete(results):
        if "hardware" in result:
            runs[result["hardware"]].append(f"{label_of(result)} seed {result['seed']}")
    if not runs:
        return []
    told = "; ".join(f"{hardware}: {', '.join(names)}" for hardware, names in runs.items())
    return [Line(f"training times were taken on different hardware and do not compare: {told}", "yellow")]


def _complete_runs(group: Sequence[Result]) -> str:
    return f"{len(complete(group))} of {len(group)}"


def _overall(group: Sequence[Result]) -> str:
    if not complete(group):
        return absence(group)
    values = [value for value in map(overall, complete(group)) if value is not None]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "not finite" if values else "-"
    return _with_interval(summarise(finite))


def _with_interval(summary: Summary) -> str:
    if not math.isfinite(summary.mean):
        return "not finite"
    return f"{summary.mean:.3f}" if summary.interval is None else f"{summary.mean:.3f} ± {summary.interval:.3f}"


def _measurements_sheet(result: Result) -> Sheet:
    """One row per set of coordinates, one column per metric."""
    places: dict[tuple[tuple[str, Any], ...], dict[str, dict[str, Any]]] = {}
    for measurement in result["measurements"]:
        place = tuple(measurement["coordinates"].items())
        places.setdefault(place, {})[measurement["metric"]] = measurement
    coordinates = list(dict.fromkeys(name for place in places for name, _ in place))
    metrics = list(dict.fromkeys(measurement["metric"] for measurement in result["measurements"]))
    rows = []
    for place, values in places.items():
        known = dict(place)
        cells = [_coordinate(known[name]) if name in known else "all" for name in coordinates]
        rows.append(Row((*cells, *[_measured(values[metric]) if metric in values else "-" for metric in metrics])))
    title = "test set; in brackets how many items stand behind a figure"
    return Sheet(title, [words(name) for name in [*coordinates, *metrics]], rows, left=())


def _measured(measurement: dict[str, Any]) -> str:
    value = measurement["value"]
    return f"{'not finite' if value is None else format(value, '.3f')} ({measurement['n']:,})"


def _notes(results: Sequence[Result]) -> list[Line]:
    """What the task says of the result; of several models, what holds for all of them."""
    lists = [result["notes"] for result in complete(results)]
    return [Line(text) for text in lists[0] if all(text in texts for texts in lists)]


def _confounds(results: Sequence[Result]) -> list[Line]:
    """Each confound once where all models agree, by model where they differ."""
    groups = {label: _of_all_seeds(group) for label, group in by_model(complete(results)).items()}
    lines = []
    for name in dict.fromkeys(name for confounds in groups.values() for name in confounds):
        values = {label: confounds.get(name, "-") for label, confounds in groups.items()}
        if len(set(values.values())) == 1:
            lines.append(f"{name}: {next(iter(values.values()))}")
        else:
            lines.append(f"{name}: " + "; ".join(f"{label}: {value}" for label, value in values.items()))
    return [Line(text, "dim") for text in lines]


def _of_all_seeds(group: Sequence[Result]) -> dict[str, str]:
    """The confounds of one model's runs; only its kernels can differ from seed to seed."""
    names = dict.fromkeys(name for result in group for name in result["confounds"])
    return {name: " or ".join(dict.fromkeys(result["confounds"].get(name, "-") for result in group)) for name in names}


def _coordinate(value: Any) -> str:
    return "unbounded" if value is None else f"{value}"
