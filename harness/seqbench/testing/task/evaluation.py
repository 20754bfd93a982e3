"""Clauses on evaluation: its measurements and items, repeats, and what it asks of a model."""

import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from seqbench.contracts import Evaluation, Measurement, TaskPlugin
from seqbench.testing.report import ClauseFailure
from seqbench.testing.task.subject import TaskSubject

# Training batches that are searched for sequences of the evaluation sets.
_SEARCHED_SEEDS, _SEARCHED_BATCHES, _SEARCHED_ROWS = 3, 16, 32


def evaluation(subject: TaskSubject) -> None:
    """Both splits yield finite measurements, the primary metric over the primary coordinate among them."""
    metric, coordinate = subject.task_class.primary_metric, subject.task_class.primary_coordinate
    for split, (found, _) in subject.evaluations.items():
        if not isinstance(found, Evaluation):
            raise ClauseFailure(
                f"evaluate(..., {split!r}) returns a {type(found).__qualname__}, expected an Evaluation"
            )
        for measurement in found.measurements:
            _require_measurement(measurement, split)
        if not any(entry.metric == metric and coordinate in entry.coordinates for entry in found.measurements):
            raise ClauseFailure(
                f"no measurement of {split} has the primary metric {metric!r} with the primary coordinate"
                f" {coordinate!r}: found {sorted({entry.metric for entry in found.measurements})} with"
                f" {sorted({key for entry in found.measurements for key in entry.coordinates})}",
                "tables, plots and comparisons lay out the primary metric over that coordinate",
            )


def _require_measurement(measurement: Any, split: str) -> None:
    if not isinstance(measurement, Measurement):
        raise ClauseFailure(f"{split}: {measurement!r} is no Measurement")
    what = f"{split}: measurement {measurement.metric!r} at {dict(measurement.coordinates)}"
    value = measurement.value
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ClauseFailure(f"{what} has the value {value!r}, expected a finite number")
    if not isinstance(measurement.n, int) or measurement.n < 1:
        raise ClauseFailure(f"{what} has n {measurement.n!r}, expected the number of items behind it, 1 or more")
    if measurement.split != split:
        raise ClauseFailure(f"{what} says that its split is {measurement.split!r}")
    if not measurement.metric or not measurement.unit:
        raise ClauseFailure(f"{what} lacks a metric or a unit ({measurement.unit!r})")
    _require_plain(dict(measurement.coordinates), f"coordinates of {what}")


def items(subject: TaskSubject) -> None:
    """Items are flat records of plain values, each with an index of its own; their scores make the primary figure."""
    for split, (found, _) in subject.evaluations.items():
        seen: set[Any] = set()
        for place, item in enumerate(found.items):
            what = f"{split}: item {place}"
            if not isinstance(item, Mapping) or "index" not in item or len(item) < 2:
                raise ClauseFailure(f"{what} is {item!r}, expected a mapping with 'index' and at least one metric")
            if not isinstance(item["index"], int) or item["index"] in seen:
                raise ClauseFailure(
                    f"{what} has index {item['index']!r}, expected a whole number that no other item has",
                    "comparisons pair the items of two models by their index",
                )
            seen.add(item["index"])
            nested = [key for key, value in item.items() if isinstance(value, Mapping | list | tuple | Tensor)]
            if nested:
                raise ClauseFailure(f"{what}: {nested[0]!r} is no single value ({type(item[nested[0]]).__qualname__})")
            _require_plain(dict(item), what)
        if found.items:
            _require_scores(subject.fresh(), found, split)


def _require_scores(task: TaskPlugin[Any], found: Evaluation, split: str) -> None:
    """The weighted mean of the item scores against the primary metric over the whole set, where that is measured."""
    scores = [task.item_score(item) for item in found.items]
    if not all(math.isfinite(number) for pair in scores for number in pair) or any(pair[1] < 0 for pair in scores):
        raise ClauseFailure(f"{split}: item_score() gives scores that are not finite, or weights below zero")
    weighted = math.fsum(score * weight for score, weight in scores) / math.fsum(weight for _, weight in scores)
    for measurement in found.measurements:
        whole = measurement.metric == task.primary_metric and not measurement.coordinates
        if whole and not math.isclose(weighted, measurement.value, rel_tol=1e-6, abs_tol=1e-9):
            raise ClauseFailure(
                f"{split}: the weighted mean of item_score() is {weighted:.6g}, and the {measurement.metric} over all"
                f" items {measurement.value:.6g}",
                "models are compared item by item with these scores: weigh an item by what it counts in the figure",
            )


def _require_plain(record: dict[str, Any], what: str) -> None:
    try:
        json.dumps(record, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ClauseFailure(f"{what} cannot be written as JSON: {error} ({record})") from error


def repeatable(subject: TaskSubject) -> None:
    """The same predictor gets the same evaluation: again, from the same instance, and after other global seeds."""
    for split, (expected, asked) in subject.evaluations.items():
        task = subject.fresh()
        predictor = type(asked)(task.vocab_size)
        for way in ("after other global seeds", "a second time by the same instance"):
            torch.manual_seed(99)
            predictor.calls.clear()
            found = task.evaluate(predictor, split)
            if not _same_calls(predictor.calls, asked.calls):
                raise ClauseFailure(
                    f"evaluating {split} {way} hands other sequences to the predictor",
                    "validation and test sets are fixed: draw them from generators seeded by constants",
                )
            # By their text: a NaN is no other number the second time.
            if repr(found) != repr(expected):
                raise ClauseFailure(f"evaluating {split} {way} gives other measurements or items for the same logits")


def _same_calls(found: Any, expected: Any) -> bool:
    if len(found) != len(expected):
        return False
    for one, other in zip(found, expected, strict=True):
        if (one[1] is None) != (other[1] is None):
            return False
        if not all(torch.equal(a, b) for a, b in zip(one, other, strict=True) if a is not None):
            return False
    return True


def evaluation_calls(subject: TaskSubject) -> None:
    """Every call of the predictor has int64 ids in rows, masks of zeros and ones, and no more tokens than declared."""
    most = subject.fresh().tokens_per_evaluation_call
    for split, (_, predictor) in subject.evaluations.items():
        if not predictor.calls:
            raise ClauseFailure(f"evaluating {split} never asks the predictor")
        for ids, mask in predictor.calls:
            if ids.dtype != torch.int64 or ids.dim() != 2 or not ids.numel():
                raise ClauseFailure(
                    f"{split}: the predictor is handed {ids.dtype} of shape {tuple(ids.shape)}, expected int64 (batch,"
                    " length)"
                )
            if ids.numel() > most:
                raise ClauseFailure(
                    f"{split}: one call hands {ids.numel():,} tokens ({tuple(ids.shape)}) to the predictor, more than"
                    f" tokens_per_evaluation_call ({most:,})",
                    "the memory estimate uses that number: evaluate in parts, or declare the largest call",
                )
            if mask is not None and (mask.shape != ids.shape or bool(((mask != 0) & (mask != 1)).any())):
                raise ClauseFailure(f"{split}: attention_mask is no mask of zeros and ones of shape {tuple(ids.shape)}")


def splits_apart(subject: TaskSubject) -> None:
    """Sequences of the evaluation sets are found in training no more often than those of another training seed.

    Where few sequences exist, some coincide by chance.
    """
    task, sizes = subject.fresh(), _searched_sizes(subject)
    trained: set[tuple[int, ...]] = set()
    for seed in range(_SEARCHED_SEEDS):
        for size in sizes:
            trained |= _training_rows(task, seed, size)
    other = _training_rows(task, _SEARCHED_SEEDS, _SEARCHED_ROWS)
    chance = len(other & trained) / len(other)
    for split, (_, predictor) in subject.evaluations.items():
        asked = set().union(*(_rows(ids, mask) for ids, mask in predictor.calls))
        share = len(asked & trained) / len(asked)
        if share > chance + 0.2:
            raise ClauseFailure(
                f"{share:.0%} of the sequences of {split} occur in the first {_SEARCHED_BATCHES} batches of"
                f" {_SEARCHED_SEEDS} training seeds; of the sequences of another training seed, {chance:.0%}",
                "seed training, validation and test apart, or take them from different parts of the data",
            )


def held_out(subject: TaskSubject) -> None:
    """No test sequence comes twice, and none is found in the first training batches, unless the task counts it itself.

    What `contamination` says of the same batches may be so, and is printed with every result.
    """
    task = subject.fresh()
    _, predictor = subject.evaluations["test"]
    asked = [row for ids, mask in predictor.calls for row in _listed_rows(ids, mask)]
    different = set(asked)
    for seed, size in itertools.product(range(_SEARCHED_SEEDS), _searched_sizes(subject)):
        counted = task.contamination(seed, _SEARCHED_BATCHES, size)
        whole = next((each for each in counted if each.split == "test" and not each.coordinates), None)
        repeated, seen = (whole.items - whole.distinct, whole.in_training) if whole is not None else (0, 0)
        if len(asked) - len(different) > repeated:
            raise ClauseFailure(
                f"{len(asked) - len(different)} of {len(asked)} test sequences are repeats of others",
                "draw a sample again that the set has already, or count it in contamination()",
            )
        trained = different & _training_rows(task, seed, size)
        found = sum(row in trained for row in asked)
        if found > seen:
            raise ClauseFailure(
                f"{found} of {len(asked)} test sequences occur in the first {_SEARCHED_BATCHES} batches of training"
                f" seed {seed}" + (f", and contamination() counts {seen}" if seen else ""),
                "leave them out of training, make sequences longer, or count them in contamination()",
            )


def _searched_sizes(subject: TaskSubject) -> list[int]:
    """Batch sizes that are tried: a stream may depend on it, and the sets may have been drawn from one of these."""
    sizes = {_SEARCHED_ROWS}
    for _, predictor in subject.evaluations.values():
        rows = [len(ids) for ids, _ in predictor.calls]
        sizes |= {min(count, 16 * _SEARCHED_ROWS) for count in (max(rows), sum(rows))}
    return sorted(sizes)


def _training_rows(task: TaskPlugin[Any], seed: int, size: int) -> set[tuple[int, ...]]:
    found: set[tuple[int, ...]] = set()
    for index in range(_SEARCHED_BATCHES):
        batch = task.training_batch(seed, index, size)
        found |= _rows(batch.input_ids, batch.attention_mask)
    return found


def _rows(ids: Tensor, mask: Tensor | None) -> set[tuple[int, ...]]:
    """The different rows, their real tokens alone."""
    return set(_listed_rows(ids, mask))


def _listed_rows(ids: Tensor, mask: Tensor | None) -> list[tuple[int, ...]]:
    """The real tokens of every row."""
    real = torch.ones_like(ids) if mask is None else mask
    return [tuple(row[keep.bool()].tolist()) for row, keep in zip(ids, real, strict=True)]
