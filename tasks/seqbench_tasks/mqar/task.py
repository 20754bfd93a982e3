"""The task plugin of multi-query associative recall."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import cache

import numpy as np

from seqbench.contracts import IGNORED_LABEL
from seqbench_tasks.mqar.config import MQARConfig
from seqbench_tasks.mqar.presets import PRESETS
from seqbench_tasks.synthetic import Difficulty, Draws, Samples, SyntheticTask


@dataclass(frozen=True)
class Pairs(Difficulty):
    """Sequences of `length` tokens with `pairs` key-value pairs."""

    length: int
    pairs: int


class MQARTask(SyntheticTask[MQARConfig, Pairs]):
    """Multi-query associative recall (Zoology, arXiv 2312.04927): every key comes twice, the first time with its value.

    One sample with 2 pairs and 12 tokens; "." is a token at random, any of the vocabulary, and "-" marks positions
    without a label:

        position   0  1  2  3  4  5  6  7  8  9 10 11
        inputs    k1 v1 k2 v2 k2  .  .  .  .  . k1  .
        labels     -  -  -  - v2  -  -  -  -  - v1  -

    Keys differ from each other, and values do. Behind the n pairs there are (length - 2n) / 2 places for queries, every
    second position. Each key is asked once: its place is drawn among the free ones with a probability that falls with
    the distance g = 1, 2, ... from the pairs as g^(a-1).

    Published findings: attention solves it at every width, gated convolutions need a width that grows with the length,
    and in recurrent models accuracy goes with the size of the state (Based, arXiv 2402.18668). Two sequences with the
    same keys and different values can go on alike and then want different answers: behind the pairs, a model that
    answers everything has a different state for each assignment of values to keys. A smaller state has to err.
    """

    name = "mqar"
    summary = "multi-query associative recall: name the value of every key that comes again (Zoology)"
    version = "2"
    config_class = MQARConfig
    presets = PRESETS
    primary_coordinate = "pairs"

    @property
    def vocab_size(self) -> int:
        """Keys, values, and the token that is neither."""
        return self.config.vocabulary

    def training_mixture(self) -> Mapping[Pairs, int]:
        """The configured lengths and pairs with their shares."""
        rungs = map(Pairs, self.config.training_lengths, self.config.training_pairs)
        return dict(zip(rungs, self.config.training_shares, strict=True))

    def test_set(self) -> Mapping[Pairs, int]:
        """The configured lengths and pairs, which may go beyond training."""
        rungs = map(Pairs, self.config.test_lengths, self.config.test_pairs)
        return dict.fromkeys(rungs, self.config.test_samples)

    def samples(self, difficulty: Pairs, draws: Draws) -> Samples:
        """Sequences of `length` tokens with `pairs` labels each."""
        length, pairs, vocabulary = difficulty.length, difficulty.pairs, self.config.vocabulary
        keys = 1 + draws.distinct(vocabulary // 2 - 1, pairs)
        values = vocabulary // 2 + draws.distinct(vocabulary - vocabulary // 2, pairs)
        places = 2 * pairs + 2 * draws.weighted_distinct(
            _gap_weights(length // 2 - pairs, self.config.gap_power), pairs
        )
        if self.config.random_non_queries:
            input_ids = draws.below(vocabulary, length)
        else:
            input_ids = np.zeros((draws.count, length), dtype=np.int64)
        input_ids[:, 0 : 2 * pairs : 2] = keys
        input_ids[:, 1 : 2 * pairs : 2] = values
        labels = np.full_like(input_ids, IGNORED_LABEL)
        np.put_along_axis(input_ids, places, keys, axis=1)
        np.put_along_axis(labels, places, values, axis=1)
        return Samples(input_ids, labels)

    def chance(self, difficulty: Pairs) -> float:
        """Any of the values of the vocabulary."""
        del difficulty
        return 1 / (self.config.vocabulary - self.config.vocabulary // 2)

    def memory_bits(self, difficulty: Pairs) -> float:
        """Which of the different values belongs to each key, were the keys known."""
        return math.log2(math.perm(self.config.vocabulary - self.config.vocabulary // 2, difficulty.pairs))

    def sample_bits(self, difficulty: Pairs) -> float:
        """Keys and values alone."""
        return math.log2(math.perm(self.config.vocabulary // 2 - 1, difficulty.pairs)) + self.memory_bits(difficulty)

    def notes(self) -> list[str]:
        """The level of a model that knows what was said and not of which key."""
        return ["Naming any value of the sequence scores one over its pairs. Set accuracy beside the state's size."]


@cache
def _gap_weights(places: int, power: float) -> tuple[int, ...]:
    """Weights of the places 0 .. places - 1 for queries, which sum to less than 2**32."""
    # Decimal arithmetic, since powers in binary floating point may differ between processors in the last bit.
    with localcontext(prec=28):
        shares = [Decimal(gap) ** (Decimal(str(power)) - 1) for gap in range(1, places + 1)]
        scale = (2**32 - 1 - places) / sum(shares, Decimal(0))
        return tuple(1 + int(share * scale) for share in shares)
