"""What a result says of the primary metric: one value per place, and one over the whole test set."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any


def values_by_place(metric: str, coordinate: str, measurements: Iterable[dict[str, Any]]) -> dict[Any, float]:
    """One value of `metric` at each place of `coordinate`, however many measurements lie there."""
    at_place: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for measurement in measurements:
        place = measurement["coordinates"].get(coordinate)
        if measurement["metric"] == metric and place is not None:
            at_place[place].append(measurement)
    return {place: _pooled(found) for place, found in at_place.items()}


def overall_measurement(result: dict[str, Any]) -> dict[str, Any] | None:
    """The primary metric over the whole test set: the measurement without coordinates. None where there is none."""
    for measurement in result["measurements"]:
        if measurement["metric"] == result["task"]["primary_metric"] and not measurement["coordinates"]:
            return measurement
    return None


def overall(result: dict[str, Any]) -> float | None:
    """Value of the `overall_measurement`, or None."""
    measurement = overall_measurement(result)
    return None if measurement is None else _number(measurement["value"])


def _pooled(measurements: Sequence[dict[str, Any]]) -> float:
    """One value of one run: the mean, by the items behind them, over places that differ in other coordinates only."""
    values = [_number(measurement["value"]) for measurement in measurements]
    return values[0] if len(values) == 1 else fmean(values, [measurement["n"] for measurement in measurements])


def _number(value: float | None) -> float:
    """A stored value; JSON has no NaN, which is stored as null."""
    return float("nan") if value is None else value
