"""Two models over the same seeds: a paired t-test, its interval, effect size and smallest detectable difference."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seqbench.statistics.summary import critical_value, summarise

# Chance of noticing a true difference of the size that is called detectable.
POWER = 0.8

# Points of the integral over the estimated deviation: the power is then exact to four digits.
_QUANTILES = 4_000


@dataclass(frozen=True)
class SeedComparison:
    """First model minus second, over seeds.

    Attributes:
        seeds: number of pairs.
        difference: mean difference.
        interval: 95 % interval of the mean difference, not corrected for other comparisons; None for one seed.
        p_value: of the two-sided paired t-test; None for one seed.
        effect_size: Hedges' g of the paired differences; None for one seed.
        deviation: standard deviation of the differences that the test used; None for one seed.
    """

    seeds: int
    difference: float
    interval: tuple[float, float] | None
    p_value: float | None
    effect_size: float | None
    deviation: float | None


def compare_seeds(first: Sequence[float], second: Sequence[float], resolution: float) -> SeedComparison:
    """Compare values of the same seeds in the same order.

    The test takes the differences to be symmetric about zero when neither model is better, as they are when both
    results have the same distribution over seeds.

    Args:
        first: one finite value per seed.
        second: as `first`.
        resolution: the smallest step of the values (one over the items for an accuracy, 0 for a continuous figure). A
            standard deviation below what rounding to such steps alone gives is raised to it: equal values on few seeds
            show how coarse the scale is, not that nothing varies.
    """
    differences = [one - other for one, other in zip(first, second, strict=True)]
    summary = summarise(differences)
    if summary.deviation is None:
        return SeedComparison(1, summary.mean, None, None, None, None)
    # Rounding to steps r adds a variance of r^2 / 12 to each of the two values.
    deviation = max(summary.deviation, resolution / math.sqrt(6))
    if deviation == 0:
        # Equal to every digit on a continuous scale: the same model, or a constant.
        p_value = 1.0 if summary.mean == 0 else 0.0
        effect = 0.0 if summary.mean == 0 else math.copysign(math.inf, summary.mean)
        return SeedComparison(len(differences), summary.mean, (summary.mean, summary.mean), p_value, effect, 0.0)
    from scipy import stats

    seeds, freedom = len(differences), len(differences) - 1
    error = deviation / math.sqrt(seeds)
    half = error * critical_value(freedom)
    return SeedComparison(
        seeds=seeds,
        difference=summary.mean,
        interval=(summary.mean - half, summary.mean + half),
        p_value=float(2 * stats.t.sf(abs(summary.mean) / error, freedom)),
        effect_size=summary.mean / deviation * _small_sample_factor(freedom),
        deviation=deviation,
    )


def detectable_difference(deviation: float, seeds: int, level: float) -> float:
    """The smallest true difference that a paired t-test at `level` would notice with probability `POWER`.

    Args:
        deviation: standard deviation of the paired differences.
        seeds: number of pairs, at least 2.
        level: two-sided significance level, corrected for the number of comparisons.
    """
    from scipy import optimize, stats

    critical = critical_value(seeds - 1, level)
    spread = _spread_quantiles(seeds - 1)

    def shortfall(shift: float) -> float:
        noticed = stats.norm.sf(critical * spread - shift) + stats.norm.cdf(-critical * spread - shift)
        return float(noticed.mean()) - POWER

    # Where the shift is twice the critical value times the spread's largest quantile, nearly every test notices it.
    largest = 2 * critical * float(spread[-1]) + 10
    return deviation / math.sqrt(seeds) * float(optimize.brentq(shortfall, 0.0, largest))


@functools.cache
def _spread_quantiles(freedom: int) -> NDArray[np.float64]:
    """Quantiles of the estimated deviation over the true one; scipy's noncentral t has no values in far tails."""
    from scipy import stats

    places = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    return np.sqrt(stats.chi2.ppf(places, freedom) / freedom)


def _small_sample_factor(freedom: int) -> float:
    """Hedges' correction of the standardised mean difference: J = Gamma(m/2) / (sqrt(m/2) Gamma((m-1)/2)).

    Hedges 1981, equation 6e. Infinite shrinkage for one degree of freedom, where the mean of d does not exist.
    """
    if freedom == 1:
        return 0.0
    return math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)
