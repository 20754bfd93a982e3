"""What seeds and items allow to say: summaries, paired comparisons, correction for many of them, smallest effects.

Claims about architectures rest on seeds: each seed is a whole training, paired between models because both saw the same
data. Comparisons by item speak of these trained models only.
"""

from seqbench.statistics.items import ItemComparison, compare_items
from seqbench.statistics.multiple import holm
from seqbench.statistics.paired import SeedComparison, compare_seeds, detectable_difference
from seqbench.statistics.summary import Summary, summarise
from seqbench.statistics.verdict import SEEDS_FOR_A_CLAIM, Verdict, compare_all

__all__ = [
    "SEEDS_FOR_A_CLAIM",
    "ItemComparison",
    "SeedComparison",
    "Summary",
    "Verdict",
    "compare_all",
    "compare_items",
    "compare_seeds",
    "detectable_difference",
    "holm",
    "summarise",
]
