"""Summaries over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Mean and spread of one figure over seeds.

    Attributes:
        mean: arithmetic mean.
        deviation: sample standard deviation (divisor n - 1), or None for a single seed.
        lowest, highest: range.
        seeds: number of values.
    """

    mean: float
    deviation: float | None
    lowest: float
    highest: float
    seeds: int


def summarise(values: Sequence[float]) -> Summary:
    """Summary of at least one value."""
    mean = math.fsum(values) / len(values)
    deviation = None
    if len(values) > 1:
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return Summary(mean, deviation, min(values), max(values), len(values))
