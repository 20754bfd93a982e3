"""The task plugin of set disjointness."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from seqbench.contracts import IGNORED_LABEL
from seqbench_tasks.set_disjointness.config import (
    ANSWER_SEPARATOR,
    BEGIN,
    FIRST_TOKEN,
    LIST_SEPARATOR,
    SetDisjointnessConfig,
)
from seqbench_tasks.set_disjointness.presets import PRESETS
from seqbench_tasks.synthetic import Difficulty, Draws, Samples, SyntheticTask


@dataclass(frozen=True)
class Sizes(Difficulty):
    """A list of `first` tokens, then one of `second`."""

    first: int
    second: int


class SetDisjointnessTask(SyntheticTask[SetDisjointnessConfig, Sizes]):
    """Set disjointness (JRT, arXiv 2407.05483): two lists, and the one token that stands in both.

    One sample with lists of 2 and 4; "^" is the beginning, "|" stands between the lists, "?" behind them, and "-" marks
    positions without a label:

        position   0  1  2  3  4  5  6  7  8
        inputs     ^  7  9  |  4  6  9  5  ?
        labels     -  -  -  -  -  -  -  -  9

    The tokens of a list differ from each other, and the lists have none in common until a random place of the second is
    overwritten with a random token of the first. A model that reads from left to right has to keep the first list until
    then: its size, and not that of the shorter list, sets what there is to remember. Sizes are tested in both orders.
    """

    name = "set-disjointness"
    summary = "find the one token that two lists share, the short list first or last (JRT)"
    version = "2"
    config_class = SetDisjointnessConfig
    presets = PRESETS
    primary_coordinate = "first"

    @property
    def vocab_size(self) -> int:
        """The tokens of the lists and the special ids."""
        return self.config.vocabulary

    def training_mixture(self) -> Mapping[Sizes, int]:
        """The configured sizes, equally often."""
        return dict.fromkeys(map(Sizes, self.config.training_first, self.config.training_second), 1)

    def test_set(self) -> Mapping[Sizes, int]:
        """The configured sizes, which may go beyond training."""
        rungs = map(Sizes, self.config.test_first, self.config.test_second)
        return dict.fromkeys(rungs, self.config.test_samples)

    def samples(self, difficulty: Sizes, draws: Draws) -> Samples:
        """Sequences of first + second + 3 tokens with a label at the last one."""
        first, second = difficulty.first, difficulty.second
        # Published as: split all tokens into two halves at random, draw each list from its half without repeats.
        tokens = FIRST_TOKEN + draws.distinct(self.config.tokens, first + second)
        shared = np.take_along_axis(tokens, draws.below(first, 1), axis=1)
        np.put_along_axis(tokens, first + draws.below(second, 1), shared, axis=1)
        input_ids = np.empty((draws.count, first + second + 3), dtype=np.int64)
        input_ids[:, [0, 1 + first, -1]] = BEGIN, LIST_SEPARATOR, ANSWER_SEPARATOR
        input_ids[:, 1 : 1 + first] = tokens[:, :first]
        input_ids[:, 2 + first : -1] = tokens[:, first:]
        labels = np.full_like(input_ids, IGNORED_LABEL)
        labels[:, -1:] = shared
        return Samples(input_ids, labels)

    def chance(self, difficulty: Sizes) -> float:
        """Any token that may stand in a list."""
        del difficulty
        return 1 / self.config.tokens

    def memory_bits(self, difficulty: Sizes) -> float:
        """Which tokens the first list holds.

        Two first lists can go on alike and want different answers when the second holds a token that only the one has,
        a token that only the other has, and none of theirs besides. For that the lists are counted that leave enough
        other tokens; a second list of one token is its own answer.
        """
        others = difficulty.second - 2
        return math.log2(math.comb(self.config.tokens - others, difficulty.first)) if others >= 0 else 0.0

    def sample_bits(self, difficulty: Sizes) -> float:
        """The first list, and what is left to choose for the second."""
        return math.log2(math.perm(self.config.tokens, difficulty.first + difficulty.second - 1))

    def notes(self) -> list[str]:
        """The level of a model that knows one of the lists."""
        return ["Naming any token of the shorter list scores one over its size."]
