"""Who is ahead on the primary figure: all pairs of models, by seed and by item, from stored results."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from seqbench.evaluating.measured import overall, overall_measurement
from seqbench.report.item_scores import ItemPairs, ReadItems
from seqbench.report.results import UNFINISHED, Result, absence, by_model, complete, label_of, parameter_budget
from seqbench.report.results import unmatched as is_unmatched
from seqbench.statistics.items import ItemComparison
from seqbench.statistics.multiple import holm
from seqbench.statistics.summary import summarise
from seqbench.statistics.verdict import Verdict, compare_all

# Of the verdicts' own part of comparison.json.
SCHEMA = 1


@dataclass(frozen=True)
class Figure:
    """The one figure that decides.

    Attributes:
        metric: the task's primary metric, over the whole test set.
        unit: of the figure.
        higher_is_better: whether larger figures are better.
        resolution: its smallest step: one over the items behind it for a fraction, otherwise 0.
    """

    metric: str
    unit: str
    higher_is_better: bool
    resolution: float


@dataclass(frozen=True)
class Pair:
    """Two models.

    Attributes:
        first, second: their labels.
        seeds: those in which both have a figure.
        verdict: by seeds; None when they have no seed in common.
        items: by items, over these seeds; None when the items cannot be compared.
        items_p_value: of `items`, after Holm's correction over all pairs.
        word: the verdict's, or "failed" or "unfinished" when one of the models has no complete run.
    """

    first: str
    second: str
    seeds: tuple[int, ...]
    verdict: Verdict | None
    items: ItemComparison | None
    items_p_value: float | None
    word: str


@dataclass(frozen=True)
class Judgement:
    """What the results allow to say.

    Attributes:
        figure: what was compared.
        values: model -> seed -> the figure, where it is a finite number; a model without any has an empty mapping.
        pairs: all pairs of models, in order.
        remarks: what was left out, and why.
    """

    figure: Figure
    values: dict[str, dict[int, float]]
    pairs: list[Pair]
    remarks: list[str]


def judge(results: Sequence[Result], read_items: ReadItems) -> Judgement | None:
    """Compare all models on the primary figure; None when no result has one."""
    figure, groups = _figure(results), by_model(results)
    if figure is None:
        return None
    values = {label: _values(group) for label, group in groups.items()}
    verdicts = {
        (verdict.first, verdict.second): verdict
        for verdict in compare_all(values, figure.higher_is_better, figure.resolution)
    }
    items = ItemPairs(results, read_items)
    pairs = []
    for first, second in combinations(values, 2):
        seeds = tuple(sorted(values[first].keys() & values[second].keys()))
        verdict = verdicts.get((first, second))
        comparison = items.compare(first, second, seeds) if seeds else None
        absent = [absence(groups[label]) for label in (first, second) if not complete(groups[label])]
        word = absent[0] if absent else verdict.word if verdict else "too few seeds"
        pairs.append(Pair(first, second, seeds, verdict, comparison, None, word))
    return Judgement(figure, values, _corrected(pairs), [*_not_finite(results, values), *items.remarks()])


def plain(results: Sequence[Result], judgement: Judgement | None) -> dict[str, Any] | None:
    """The verdicts as plain data, for comparison.json."""
    if judgement is None:
        return None
    return {
        "schema": SCHEMA,
        "figure": dataclasses.asdict(judgement.figure),
        "models": [_plain_model(label, group, judgement.values[label]) for label, group in by_model(results).items()],
        "pairs": [_plain_pair(pair) for pair in judgement.pairs],
        "remarks": judgement.remarks,
    }


def _figure(results: Sequence[Result]) -> Figure | None:
    measurements = [found for result in complete(results) if (found := overall_measurement(result)) is not None]
    if not measurements:
        return None
    unit = measurements[0]["unit"]
    # A fraction moves in steps of one item.
    resolution = 1 / min(found["n"] for found in measurements) if unit == "fraction" else 0.0
    task = results[0]["task"]
    return Figure(task["primary_metric"], unit, task["higher_is_better"], resolution)


def _values(group: Sequence[Result]) -> dict[int, float]:
    figures = {result["seed"]: overall(result) for result in complete(group)}
    return {seed: value for seed, value in figures.items() if value is not None and np.isfinite(value)}


def _not_finite(results: Sequence[Result], values: Mapping[str, Mapping[int, float]]) -> list[str]:
    """The complete runs that have no figure to compare."""
    return [
        f"{label_of(result)}, seed {result['seed']}: its figure is missing or no finite number; left out"
        for result in complete(results)
        if result["seed"] not in values[label_of(result)]
    ]


def _corrected(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with Holm's correction of the comparisons by item."""
    compared = [number for number, pair in enumerate(pairs) if pair.items is not None]
    p_values = [pair.items.p_value for pair in pairs if pair.items is not None]
    adjusted = dict(zip(compared, holm(p_values), strict=True))
    return [dataclasses.replace(pair, items_p_value=adjusted.get(number)) for number, pair in enumerate(pairs)]


def _plain_model(label: str, group: Sequence[Result], values: Mapping[int, float]) -> dict[str, Any]:
    summary = summarise(list(values.values())) if values else None
    return {
        "model": label,
        "values": {str(seed): value for seed, value in values.items()},
        "mean": summary.mean if summary else None,
        "interval": _interval(summary.mean, summary.interval) if summary else None,
        **{
            status: {str(result["seed"]): result["failure"]["reason"] for result in group if result["status"] == status}
            for status in ("failed", UNFINISHED)
        },
        "parameter_budget": next(filter(None, map(parameter_budget, group)), None),
        "unmatched": any(map(is_unmatched, group)),
    }


def _interval(mean: float, half: float | None) -> list[float] | None:
    return None if half is None else [mean - half, mean + half]


def _plain_pair(pair: Pair) -> dict[str, Any]:
    verdict = pair.verdict
    comparison = verdict.comparison if verdict else None
    return {
        "first": pair.first,
        "second": pair.second,
        "verdict": pair.word,
        "seeds": list(pair.seeds),
        "difference": comparison.difference if comparison else None,
        "interval": comparison.interval if comparison else None,
        "standard_deviation": comparison.deviation if comparison else None,
        "effect_size": comparison.effect_size if comparison else None,
        "p_value": comparison.p_value if comparison else None,
        "adjusted_p_value": verdict.adjusted_p_value if verdict else None,
        "smallest_detectable_difference": verdict.detectable if verdict else None,
        "items": dataclasses.asdict(pair.items) | {"adjusted_p_value": pair.items_p_value} if pair.items else None,
    }
