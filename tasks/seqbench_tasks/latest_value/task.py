"""The task plugin of latest-value."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from seqbench.contracts import IGNORED_LABEL
from seqbench_tasks.latest_value.config import LatestValueConfig
from seqbench_tasks.latest_value.generate import stream
from seqbench_tasks.latest_value.presets import PRESETS
from seqbench_tasks.synthetic import Difficulty, Draws, Ids, Samples, SyntheticTask
from seqbench_tasks.synthetic.ragged import moved_together


@dataclass(frozen=True)
class Corridors(Difficulty):
    """Sequences with corridors of this length.

    Attributes:
        corridor: tokens between the writes and the queries of a round, or the most of them.
        rounds: writes, corridor and queries, this many times.
    """

    corridor: int
    rounds: int


class LatestValueTask(SyntheticTask[LatestValueConfig, Corridors]):
    """Keys get values, again and again; a query asks for the value that its key has now.

    A sequence is a chain of rounds: writes [key, value], a corridor, queries [query sign, key]. The first round writes
    all keys, every later one some of them. Three keys, one rewrite and one query a round, a corridor of two tokens; "."
    is the corridor, "?" the query sign, and "-" marks positions without a label:

        inputs     b 2 a 5 c 0 . . ? a b 7 . . ? b c 3 . . ? a
        labels     - - - - - - - - - 5 - - - - - 7 - - - - - 5

    The second query asks for b, which was rewritten: 2 would be a stale answer. The third asks for a, which has to be
    kept through the rewriting of others. Values are drawn independently, so that a rewrite may leave a value as it was;
    stale_rate is the share of queries answered with the value before the latest one, of those where the two differ.
    accuracy_after_N is the accuracy where the key had been rewritten N times.

    With one key and two values it is the supervised form of the endless T-maze (arXiv 2601.15086): a cue at the start
    of each corridor, to be answered at its end, and overwritten by the next cue. With uniform_corridors the lengths
    differ from round to round, and corridor tokens behind the last query fill what is left of the sequence.
    """

    name = "latest-value"
    summary = "keys are rewritten again and again: is the latest value answered, or an old one?"
    version = "2"
    config_class = LatestValueConfig
    presets = PRESETS
    primary_coordinate = "corridor"

    @property
    def vocab_size(self) -> int:
        """Values, keys, query sign and corridor."""
        return self.config.vocab_size

    def training_mixture(self) -> Mapping[Corridors, int]:
        """The training corridors, equally often."""
        rungs = [Corridors(corridor, self.config.training_rounds) for corridor in self.config.training_corridors]
        return dict.fromkeys(rungs, 1)

    def test_set(self) -> Mapping[Corridors, int]:
        """The corridors that the config names, which may go beyond training."""
        rungs = [Corridors(corridor, self.config.test_rounds) for corridor in self.config.test_corridors]
        return dict.fromkeys(rungs, self.config.test_samples)

    def samples(self, difficulty: Corridors, draws: Draws) -> Samples:
        """Sequences with a label at the key of every query."""
        found = stream(self.config, difficulty.rounds, difficulty.corridor, draws)
        width = found.ids.shape[1]

        def together(ids: Ids, fill: int = IGNORED_LABEL) -> Ids:
            return moved_together(ids, found.kept, width, fill)

        latest, previous, rewritten = map(together, (found.latest, found.previous, found.rewritten))
        answers = {"stale_rate": np.where(previous != latest, previous, IGNORED_LABEL)}
        for lowest in _powers_of_two(difficulty.rounds - 1):
            highest = max(lowest, 2 * lowest - 1)
            inside = (lowest <= rewritten) & (rewritten <= highest)
            answers[f"accuracy_after_{_span(lowest, highest)}"] = np.where(inside, latest, IGNORED_LABEL)
        return Samples(together(found.ids, fill=self.config.corridor), latest, answers)

    def chance(self, difficulty: Corridors) -> float:
        """One of the values."""
        del difficulty
        return 1 / self.config.values

    def lookback(self, difficulty: Corridors) -> int | None:
        """From the key of a query back to its value, where there is one key: across the corridor and the query sign."""
        if self.config.keys > 1 or self.config.uniform_corridors:
            return None
        return difficulty.corridor + 2

    def memory_bits(self, difficulty: Corridors) -> float:
        """The values of all keys, any of which may be asked for."""
        del difficulty
        return self.config.keys * math.log2(self.config.values)

    def sample_bits(self, difficulty: Corridors) -> float:
        """The values that are written."""
        writes = self.config.keys + (difficulty.rounds - 1) * self.config.rewrites
        return writes * math.log2(self.config.values)

    def notes(self) -> list[str]:
        """What the stale rate is."""
        return [
            "The stale rate is the share of queries that are answered with the value before the latest one, where the "
            f"two differ; a model that has forgotten both gives a stale rate of {1 / self.config.values:.1%}."
        ]


def _powers_of_two(largest: int) -> list[int]:
    """0, 1, 2, 4, 8, ... up to `largest`."""
    return [0, *(2**power for power in range(largest.bit_length()))]


def _span(lowest: int, highest: int) -> str:
    return str(lowest) if lowest == highest else f"{lowest}_to_{highest}"
