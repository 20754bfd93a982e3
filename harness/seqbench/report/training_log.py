"""metrics.jsonl arranged for plots: each number of a run as a series over steps."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Coordinates = tuple[tuple[str, int | float | str | None], ...]


@dataclass(frozen=True)
class Series:
    """Values over steps.

    Attributes:
        steps: (n,) int, rising.
        values: (n,) float; NaN where the number was not finite.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """One metric, measured at one or more coordinates.

    Attributes:
        name, unit: as the plugin gave them.
        series: in order of the coordinates where those are numbers, else of first appearance.
    """

    name: str
    unit: str
    series: Mapping[Coordinates, Series]


@dataclass(frozen=True)
class TrainingLog:
    """A run's log by what it tells.

    Attributes:
        loss, gradient_norm: of every step; the norm is that before clipping.
        auxiliary_loss: of every step of a model that has such a loss; else empty.
        module_gradient_norms: one series a module.
        validation, diagnostics: the metrics of the evaluations on the validation set, and of the model plugin.
    """

    loss: Series
    gradient_norm: Series
    auxiliary_loss: Series
    module_gradient_norms: Metric
    validation: Sequence[Metric]
    diagnostics: Sequence[Metric]


def arrange_log(rows: Sequence[Mapping[str, Any]]) -> TrainingLog:
    """The rows of metrics.jsonl as series."""
    trained = [row for row in rows if row["kind"] == "train"]
    modules = Metric(
        "gradient norm by module",
        "",
        _collect(
            ((("module", name),), row["step"], value)
            for row in trained
            for name, value in row.get("module_gradient_norms", {}).items()
        ),
    )
    return TrainingLog(
        _every_step(trained, "losses"),
        _every_step(trained, "gradient_norms"),
        _every_step(trained, "auxiliary_losses"),
        modules,
        _metrics(row for row in rows if row["kind"] == "evaluation" and row["split"] == "validation"),
        _metrics(row for row in rows if row["kind"] == "diagnostics"),
    )


def _every_step(rows: Iterable[Mapping[str, Any]], key: str) -> Series:
    """The lists of all lines one behind the other; each ends at its line's step."""
    points: dict[int, float | None] = {}
    for row in rows:
        # Lines of an earlier version have means only.
        values = row.get(key, ())
        points.update(zip(range(row["step"] - len(values) + 1, row["step"] + 1), values, strict=True))
    return _series(points)


def _metrics(rows: Iterable[Mapping[str, Any]]) -> list[Metric]:
    found = [(row["step"], measurement) for row in rows for measurement in row["measurements"]]
    units = {measurement["metric"]: measurement["unit"] for _, measurement in found}
    return [
        Metric(
            name,
            unit,
            _collect(
                (tuple(measurement["coordinates"].items()), step, measurement["value"])
                for step, measurement in found
                if measurement["metric"] == name
            ),
        )
        for name, unit in units.items()
    ]


def _collect(points: Iterable[tuple[Coordinates, int, float | None]]) -> dict[Coordinates, Series]:
    values: dict[Coordinates, dict[int, float | None]] = {}
    for coordinates, step, value in points:
        values.setdefault(coordinates, {})[step] = value
    places = list(values)
    if not any(isinstance(value, str) for coordinates in places for _, value in coordinates):
        # None stands for "unbounded".
        places.sort(key=lambda coordinates: [(name, value is None, value or 0) for name, value in coordinates])
    return {coordinates: _series(values[coordinates]) for coordinates in places}


def _series(points: Mapping[int, float | None]) -> Series:
    values = [float("nan") if value is None else value for value in points.values()]
    return Series(np.array(list(points), dtype=np.int64), np.array(values, dtype=np.float64))
