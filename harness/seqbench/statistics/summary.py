"""Summaries over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Of every interval that is shown.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Mean and spread of one figure over seeds.

    Attributes:
        mean: arithmetic mean.
        deviation: sample standard deviation (divisor n - 1), or None for a single seed.
        interval: half the width of the 95 % interval of the mean by Student's t, or None for a single seed.
        lowest, highest: range.
        seeds: number of values.
    """

    mean: float
    deviation: float | None
    interval: float | None
    lowest: float
    highest: float
    seeds: int


def summarise(values: Sequence[float]) -> Summary:
    """Summary of at least one value."""
    mean = math.fsum(values) / len(values)
    deviation = interval = None
    if len(values) > 1:
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
        interval = deviation / math.sqrt(len(values)) * critical_value(len(values) - 1)
    return Summary(mean, deviation, interval, min(values), max(values), len(values))


def critical_value(degrees_of_freedom: int, level: float = 1 - CONFIDENCE) -> float:
    """Two-sided critical value of Student's t at `level`."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, 1 - level / 2))
