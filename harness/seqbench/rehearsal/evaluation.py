"""Whether what a task's evaluation returns can be stored and laid out in tables."""

import dataclasses
import math
from collections import Counter
from typing import Any

from seqbench.contracts import Evaluation, Measurement, TaskPlugin
from seqbench.errors import RunFailure
from seqbench.evaluating.measured import values_by_place
from seqbench.store.files import json_line


def require_usable(task: TaskPlugin[Any], evaluation: Any, split: str) -> None:
    """Raise RunFailure("evaluation"), naming the measurement or item, for what no result could be made of."""
    if not isinstance(evaluation, Evaluation):
        raise _unusable(task, split, f"returns {type(evaluation).__qualname__}, expected an Evaluation")
    for measurement in evaluation.measurements:
        if not isinstance(measurement, Measurement):
            raise _unusable(task, split, f"measures {measurement!r}, expected a Measurement")
        _require_json(task, split, "a measurement", dataclasses.asdict(measurement))
    for item in evaluation.items:
        _require_json(task, split, "an item", item)
    _require_primary_metric(task, split, evaluation)
    places = Counter(
        (measured.metric, measured.split, tuple(sorted(measured.coordinates.items(), key=str)))
        for measured in evaluation.measurements
    )
    repeated = [place for place, count in places.items() if count > 1]
    if repeated:
        metric, _, coordinates = repeated[0]
        raise _unusable(task, split, f"measures {metric} at {dict(coordinates) or 'no coordinates'} more than once")


def _require_primary_metric(task: TaskPlugin[Any], split: str, evaluation: Evaluation) -> None:
    found = [measured for measured in evaluation.measurements if measured.metric == task.primary_metric]
    if not found:
        metrics = ", ".join(dict.fromkeys(measured.metric for measured in evaluation.measurements))
        raise _unusable(
            task, split, f"does not measure the primary metric {task.primary_metric}, but {metrics or 'nothing'}"
        )
    for measured in found:
        value = measured.value
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise _unusable(
                task, split, f"measures {measured.metric} as {value!r} at {dict(measured.coordinates)} on a fresh model"
            )
    places = values_by_place(task.primary_metric, task.primary_coordinate, map(dataclasses.asdict, found))
    try:
        sorted(places)
    except TypeError as error:
        kinds = " and ".join(sorted({type(place).__name__ for place in places}))
        raise _unusable(task, split, f"gives the coordinate {task.primary_coordinate} as {kinds}") from error


def _require_json(task: TaskPlugin[Any], split: str, what: str, content: Any) -> None:
    if not isinstance(content, dict):
        content = dict(content) if hasattr(content, "keys") else content
    try:
        json_line(content)
    except (TypeError, ValueError) as error:
        raise _unusable(task, split, f"gives {what} that cannot be written as JSON: {error}") from error


def _unusable(task: TaskPlugin[Any], split: str, what: str) -> RunFailure:
    return RunFailure("evaluation", f"evaluate() of task {task.name} on {split} {what}")
