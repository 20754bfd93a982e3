"""The task plugin of multi-query joint recall."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from seqbench.contracts import IGNORED_LABEL
from seqbench_tasks.joint_recall.config import BEGIN, FIRST_CONTEXT, PADDING, SEPARATOR, JointRecallConfig
from seqbench_tasks.joint_recall.presets import PRESETS
from seqbench_tasks.synthetic import Difficulty, Draws, Ids, Samples, SyntheticTask


@dataclass(frozen=True)
class Cell(Difficulty):
    """Sequences of `contexts` contexts with `keys` keys each."""

    contexts: int
    keys: int


class JointRecallTask(SyntheticTask[JointRecallConfig, Cell]):
    """Multi-query joint recall (HAX, arXiv 2507.00449): every pair of a context and a key has a value of its own.

    One sample with 2 contexts A, B and 2 keys; "^" is the beginning, "|" the separator, va1 the value of key 1 in
    context A, and "-" marks positions without a label:

        position   0   1   2   3   4   5   6   7   8   9  10  11  12  13  14  15  16  17  18  19  20  21
        inputs     ^   A  k2 va2  k1 va1   B  k1 vb1  k2 vb2   |   B  k2 vb2  k1 vb1   A  k2 va2  k1 va1
        labels     -   -   -   -   -   -   -   -   -   -   -   -   - vb2   - vb1   -   - va2   - va1   -

    All facts are said twice, contexts and the keys of each context in another random order. A cell with C contexts and
    K keys uses the first C and the first K of their ids; values are uniform. The ids of contexts, keys and values do
    not overlap: the published ranges are not known to us beyond their start at 10.

    As published, every training sequence draws its cell, and shorter ones are padded.

    Theory (same paper): a state-space model cannot solve it in time below quadratic in the length, since its state has
    to hold C x K values at the separator; attention that picks its keys by content can.
    """

    name = "joint-recall"
    summary = "multi-query joint recall: the value of a key depends on its context (HAX)"
    version = "2"
    config_class = JointRecallConfig
    presets = PRESETS
    primary_coordinate = "contexts"

    @property
    def vocab_size(self) -> int:
        """Special ids, contexts, keys and values."""
        return self.config.vocab_size

    @property
    def mixes_rows(self) -> bool:
        """Every training sequence has a cell of its own."""
        return True

    @property
    def padding(self) -> int:
        """The published id."""
        return PADDING

    def training_mixture(self) -> Mapping[Cell, int]:
        """All cells, equally often."""
        return dict.fromkeys(self._cells(), 1)

    def test_set(self) -> Mapping[Cell, int]:
        """All cells."""
        return dict.fromkeys(self._cells(), self.config.test_samples)

    def samples(self, difficulty: Cell, draws: Draws) -> Samples:
        """Sequences of 2C(2K + 1) + 2 tokens with C x K labels each."""
        contexts, keys = difficulty.contexts, difficulty.keys
        values = self.config.first_value + draws.below(self.config.values, contexts, keys)
        facts, _ = self._facts(values, draws.permutations(contexts), draws.permutations(contexts, keys))
        again, asked = self._facts(values, draws.permutations(contexts), draws.permutations(contexts, keys))
        begin, separator = np.full((draws.count, 1), BEGIN), np.full((draws.count, 1), SEPARATOR)
        input_ids = np.concatenate((begin, facts, separator, again), axis=1)
        labels = np.full_like(input_ids, IGNORED_LABEL)
        labels[:, -asked.shape[1] :] = asked
        return Samples(input_ids, labels)

    def chance(self, difficulty: Cell) -> float:
        """Any of the values."""
        del difficulty
        return 1 / self.config.values

    def memory_bits(self, difficulty: Cell) -> float:
        """A value for each pair of context and key at the separator."""
        return difficulty.contexts * difficulty.keys * math.log2(self.config.values)

    def sample_bits(self, difficulty: Cell) -> float:
        """The values alone."""
        return self.memory_bits(difficulty)

    def _cells(self) -> list[Cell]:
        config = self.config
        return [
            Cell(contexts, keys)
            for contexts in range(config.fewest_contexts, config.most_contexts + 1)
            for keys in range(config.fewest_keys, config.most_keys + 1)
        ]

    def _facts(self, values: Ids, context_order: Ids, key_order: Ids) -> tuple[Ids, Ids]:
        """All facts in the given orders, and the labels at their keys, both (count, C(2K + 1)).

        Args:
            values: (count, C, K) by context and key.
            context_order: (count, C), the context that comes i-th.
            key_order: (count, C, K), in the context that comes i-th, the key that comes j-th.
        """
        count, contexts, keys = values.shape
        ordered = np.take_along_axis(np.take_along_axis(values, context_order[:, :, None], axis=1), key_order, axis=2)
        facts = np.empty((count, contexts, 1 + 2 * keys), dtype=np.int64)
        facts[:, :, 0] = FIRST_CONTEXT + context_order
        facts[:, :, 1::2] = self.config.first_key + key_order
        facts[:, :, 2::2] = ordered
        labels = np.full_like(facts, IGNORED_LABEL)
        labels[:, :, 1::2] = ordered
        return facts.reshape(count, -1), labels.reshape(count, -1)
