"""The task plugin of associative recall."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from seqbench.contracts import IGNORED_LABEL, PublishedScore
from seqbench_tasks.recall.config import FILLERS, FRAME, KEYS, VALUES, RecallConfig
from seqbench_tasks.recall.presets import PRESETS, published_scores
from seqbench_tasks.synthetic import Difficulty, Draws, Samples, SyntheticTask

# The ids of the published benchmark.
_BEGIN, _SEPARATOR, _QUERY, _ANSWER, _FIRST_KEY, _FIRST_VALUE, _FIRST_FILLER = 1, 2, 3, 4, 5, 13, 21
_VOCABULARY = 64


@dataclass(frozen=True)
class Pairs(Difficulty):
    """Sequences of `length` tokens with `pairs` key-value pairs."""

    length: int
    pairs: int


class RecallTask(SyntheticTask[RecallConfig, Pairs]):
    """Associative recall (UniMatrix, arXiv 2604.25930): key-value pairs, filler, and the value of one of the keys.

    One sample with 2 pairs and 13 tokens; "^" is the beginning, "|" ends a pair, "." is one of ten filler tokens at
    random, "?" asks and "=" wants the answer; "-" marks positions without a label:

        position   0  1  2  3  4  5  6  7  8  9 10 11 12
        inputs     ^ k1 v1  | k2 v2  |  .  .  .  ? k1  =
        labels     -  -  -  -  -  -  -  -  -  -  -  - v1

    Keys differ from each other; values are drawn for each pair anew, so that two keys may share one. There are 8 keys,
    8 values, and 64 token ids, most of which are never used.
    """

    name = "recall"
    summary = "associative recall: name the value of the one key that is asked for (UniMatrix)"
    version = "2"
    config_class = RecallConfig
    presets = PRESETS
    primary_coordinate = "pairs"

    @property
    def vocab_size(self) -> int:
        """As published: more ids than are used."""
        return _VOCABULARY

    def training_mixture(self) -> Mapping[Pairs, int]:
        """The configured lengths and pairs, equally often."""
        return dict.fromkeys(map(Pairs, self.config.training_lengths, self.config.training_pairs), 1)

    def test_set(self) -> Mapping[Pairs, int]:
        """The configured lengths and pairs, which may go beyond training."""
        rungs = map(Pairs, self.config.test_lengths, self.config.test_pairs)
        return dict.fromkeys(rungs, self.config.test_samples)

    def samples(self, difficulty: Pairs, draws: Draws) -> Samples:
        """Sequences of `length` tokens with a label at the last one."""
        pairs = difficulty.pairs
        keys = _FIRST_KEY + draws.distinct(KEYS, pairs)
        values = _FIRST_VALUE + draws.below(VALUES, pairs)
        asked = draws.below(pairs, 1)
        input_ids = _FIRST_FILLER + draws.below(FILLERS, difficulty.length)
        input_ids[:, [0, -3, -1]] = _BEGIN, _QUERY, _ANSWER
        facts = np.stack((keys, values, np.full_like(keys, _SEPARATOR)), axis=2)
        input_ids[:, 1 : 1 + 3 * pairs] = facts.reshape(draws.count, -1)
        input_ids[:, -2:-1] = np.take_along_axis(keys, asked, axis=1)
        labels = np.full_like(input_ids, IGNORED_LABEL)
        labels[:, -1:] = np.take_along_axis(values, asked, axis=1)
        return Samples(input_ids, labels)

    def chance(self, difficulty: Pairs) -> float:
        """Any of the 8 values."""
        del difficulty
        return 1 / VALUES

    def memory_bits(self, difficulty: Pairs) -> float:
        """A value for each key, were the keys known: any of them may be asked for."""
        return difficulty.pairs * math.log2(VALUES)

    def sample_bits(self, difficulty: Pairs) -> float:
        """The keys and their values, and the filler."""
        filler = difficulty.length - 3 * difficulty.pairs - FRAME
        keys = math.log2(math.perm(KEYS, difficulty.pairs))
        return keys + self.memory_bits(difficulty) + filler * math.log2(FILLERS)

    def published(self) -> Sequence[PublishedScore]:
        """The scores of the pilot, for its config alone."""
        return published_scores(self.config)
