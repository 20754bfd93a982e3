"""What an evaluation returns: measurements, and the items behind them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# The coordinate under which a task gives the distance in tokens between a prediction and what it depends on. Tables and
# plots over it mark each model's attention reach.
LOOKBACK = "lookback"


@dataclass(frozen=True)
class Measurement:
    """One number that a task measured.

    Attributes:
        metric: what was measured, such as "byte_accuracy".
        value: the number, in `unit`.
        unit: "fraction", "bits per byte", ...
        n: how many items stand behind the number (bytes, strings, books).
        coordinates: where it was measured, such as {"length": 64, "lookback": 64}; None stands for "unbounded".
        split: "validation" or "test", or "training" for what a plugin tells of its inside.
    """

    metric: str
    value: float
    unit: str
    n: int
    split: str
    coordinates: Mapping[str, int | float | str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """All measurements of one evaluation and, kept beside them for paired comparisons, one record per item.

    An item is a flat mapping with at least "index" (its place in the split) and the metrics of that item.
    """

    measurements: tuple[Measurement, ...]
    items: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Contamination:
    """How much of an evaluation set is no news to a model that was trained, or to whoever chose it.

    Attributes:
        split: the set, "validation" or "test".
        items: in the set.
        distinct: different ones among them.
        in_training: whose whole input stood in a training sequence.
        in_test: of a validation set, those that are in the test set too.
        coordinates: of a part of the set; empty for all of it.
    """

    split: str
    items: int
    distinct: int
    in_training: int
    in_test: int
    coordinates: Mapping[str, int | float | str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class PublishedScore:
    """A score that a paper reports for what a task measures. Shown beside ours, never ranked with it.

    Attributes:
        metric, value: as in a `Measurement`; the unit is the metric's.
        model: the model it is of, such as "Transformer, 320M".
        source: where it is published, such as "arXiv 2402.01771, table 2".
        coordinates: where it was measured.
    """

    metric: str
    value: float
    model: str
    source: str
    coordinates: Mapping[str, int | float | str | None] = field(default_factory=dict)
