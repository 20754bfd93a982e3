"""Who is ahead, over all pairs of the models compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from seqbench.statistics.multiple import holm
from seqbench.statistics.paired import SeedComparison, compare_seeds, detectable_difference
from seqbench.statistics.summary import CONFIDENCE

# With two, the interval of a difference is more than twelve times its standard error on either side.
SEEDS_FOR_A_CLAIM = 3


@dataclass(frozen=True)
class Verdict:
    """One pair of models.

    Attributes:
        first, second: their names.
        comparison: first minus second over the seeds that both have.
        adjusted_p_value: after Holm's correction over all pairs; None when there are too few seeds.
        detectable: smallest true difference that this design would notice with 80 % power at the level that Bonferroni
            leaves to one of these pairs, given the spread seen; None when there are too few seeds.
        word: "ahead" or "behind" (the first model), "not distinguishable", or "too few seeds".
    """

    first: str
    second: str
    comparison: SeedComparison
    adjusted_p_value: float | None
    detectable: float | None
    word: str


def compare_all(
    values: Mapping[str, Mapping[int, float]], higher_is_better: bool, resolution: float = 0.0
) -> list[Verdict]:
    """Verdicts on all pairs of models, at a family-wise level of 5 %.

    Args:
        values: model -> seed -> the primary figure; pairs are compared over the seeds that both have.
        higher_is_better: whether larger figures are better.
        resolution: smallest step of the figure, see `compare_seeds`.
    """
    compared: list[tuple[str, str, SeedComparison]] = []
    for first, second in combinations(values, 2):
        seeds = sorted(values[first].keys() & values[second].keys())
        if seeds:
            ours, theirs = ([values[name][seed] for seed in seeds] for name in (first, second))
            compared.append((first, second, compare_seeds(ours, theirs, resolution)))
    testable = {
        (first, second): comparison.p_value
        for first, second, comparison in compared
        if comparison.seeds >= SEEDS_FOR_A_CLAIM and comparison.p_value is not None
    }
    adjusted = dict(zip(testable, holm(list(testable.values())), strict=True))
    level = (1 - CONFIDENCE) / max(1, len(testable))
    verdicts = []
    for first, second, comparison in compared:
        p_value = adjusted.get((first, second))
        if p_value is None or comparison.deviation is None:
            verdicts.append(Verdict(first, second, comparison, None, None, "too few seeds"))
            continue
        detectable = detectable_difference(comparison.deviation, comparison.seeds, level)
        word = _word(comparison.difference, p_value, higher_is_better)
        verdicts.append(Verdict(first, second, comparison, p_value, detectable, word))
    return verdicts


def _word(difference: float, p_value: float, higher_is_better: bool) -> str:
    if p_value >= 1 - CONFIDENCE or difference == 0:
        return "not distinguishable"
    return "ahead" if (difference > 0) == higher_is_better else "behind"
