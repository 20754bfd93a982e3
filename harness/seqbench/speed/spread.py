"""Figures over repeats: median and quartiles, ratios of what was measured in the same repeat, growth with length."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of one figure over the repeats."""

    median: float
    lower: float
    upper: float


def spread(values: Sequence[float]) -> Spread | None:
    """Median, first and third quartile (linear between neighbours); None of nothing."""
    if not values:
        return None
    lower, median, upper = (float(value) for value in np.percentile(values, (25, 50, 75)))
    return Spread(median, lower, upper)


def paired_ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Ratios repeat by repeat, of the repeats that both have: a machine that was slow then was slow for both."""
    return [above / below for above, below in zip(numerators, denominators, strict=False) if below > 0]


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """Least-squares b of value = a length^b, in logarithms; None for fewer than two lengths.

    Args:
        points: (length, value) pairs; those that are not positive are left out, as they have no logarithm.
    """
    known = [(math.log(length), math.log(value)) for length, value in points if length > 0 and value > 0]
    if len({length for length, _ in known}) < 2:
        return None
    lengths, values = zip(*known, strict=True)
    return float(np.polyfit(lengths, values, 1)[0])
