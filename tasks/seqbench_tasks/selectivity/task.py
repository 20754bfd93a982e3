"""The task plugin of selectivity."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from seqbench.contracts import IGNORED_LABEL, LOOKBACK, Evaluation, Measurement, Predictor
from seqbench_tasks.selectivity.ambiguity import depths, share_known_by_symbol
from seqbench_tasks.selectivity.config import SelectivityConfig
from seqbench_tasks.selectivity.generate import draw_samples, states_of
from seqbench_tasks.selectivity.grammar import Grammar, grammar_of
from seqbench_tasks.selectivity.presets import PRESETS
from seqbench_tasks.synthetic import Difficulty, Draws, Ids, Samples, SyntheticTask


@dataclass(frozen=True)
class Gaps(Difficulty):
    """Gaps of up to `longest_gap` tokens."""

    longest_gap: int


class SelectivityTask(SyntheticTask[SelectivityConfig, Gaps]):
    """Read strings of a random grammar, with gaps between their symbols, and name the grammar's state at each symbol.

    One sequence of a small grammar; "." is silence, "-" marks positions without a label. The word "cad" is spelled by
    two paths of states, p1 p2 p3 behind the symbol f and q1 q2 q3 behind b:

        inputs     #  .  f  c  a  .  .  d  .  c  b  .  .  c  a  d  .  a  .  .  f  f  .  d  g
        labels     #  -  f p1 p2  -  - p3  -  c  b  -  - q1 q2 q3  -  a  -  -  f  f  -  d  g

    Most states are known by their symbol. Inside the ambiguous words it takes the symbol before the word, the entry:
    the depth is the number of past symbols that a state is known by, and the look-back the tokens over which they
    stretch, gaps included. A state and the next symbol decide the next state, so that whoever has followed the sequence
    from its beginning knows them all; a symbol in a gap is one that must not follow there. Symbols in gaps do not count
    for the depth.

    The grammar is random and the same for all seeds; `grammar.py` says how it is made.
    """

    name = "selectivity"
    summary = "follow the states of a random grammar through gaps and ambiguous words"
    version = "2"
    config_class = SelectivityConfig
    presets = PRESETS
    primary_coordinate = LOOKBACK

    @property
    def vocab_size(self) -> int:
        """Symbols, boundary, silence, noise, and the states inside words."""
        return self.config.first_word_state + len(self.grammar.emits) - self.grammar.boundary - 1

    @property
    def grammar(self) -> Grammar:
        """The grammar of this config."""
        return grammar_of(self.config)

    def training_mixture(self) -> Mapping[Gaps, int]:
        """Gaps of the training length alone."""
        return {Gaps(self.config.longest_gap): 1}

    def validation_set(self) -> Mapping[Gaps, int]:
        """Gaps as in training."""
        return {Gaps(self.config.longest_gap): self.config.validation_samples}

    def test_set(self) -> Mapping[Gaps, int]:
        """The ladder of longest gaps."""
        return dict.fromkeys(map(Gaps, self.config.test_longest_gaps), self.config.test_samples)

    def samples(self, difficulty: Gaps, draws: Draws) -> Samples:
        """Sequences with gaps of up to that length."""
        return draw_samples(self.config, self.grammar, difficulty.longest_gap, draws)

    def evaluation_samples(self, split: str, difficulty: Gaps, start: int, stop: int) -> Samples:
        """As in training, and the labels at every distance apart."""
        samples = super().evaluation_samples(split, difficulty, start, stop)
        answers = {}
        for kind, distances in self.distances(samples).items():
            for distance in np.unique(distances[distances >= 0]).tolist():
                answers[f"{kind} {distance}"] = np.where(distances == distance, samples.labels, IGNORED_LABEL)
        return replace(samples, answers=answers)

    def distances(self, samples: Samples) -> dict[str, Ids]:
        """How far back each labelled state's symbols reach, rounded down to 0, 1, 2, 4, 8, ...; -1 where no label is.

        As "depth" in symbols of the grammar, as "lookback" in tokens; each (count, length).
        """
        labelled = samples.labels != IGNORED_LABEL
        shape = (len(samples.labels), self.config.sequence_symbols)
        at = np.nonzero(labelled)[1].reshape(shape)
        depth = depths(self.grammar, states_of(self.config, samples.labels[labelled].reshape(shape)))
        begins = np.take_along_axis(at, np.arange(shape[1]) - depth, axis=1)
        found = {}
        for kind, distance in (("depth", depth), (LOOKBACK, at - begins)):
            found[kind] = np.full(samples.labels.shape, -1, dtype=np.int64)
            found[kind][labelled] = np.array([rounded_down(number) for number in distance.ravel().tolist()])
        return found

    def evaluate(self, predictor: Predictor, split: str) -> Evaluation:
        """Accuracy, exact match and loss by longest gap; accuracy by depth and by look-back, over all gaps."""
        evaluation = super().evaluate(predictor, split)
        kept: list[Measurement] = []
        apart: list[Measurement] = []
        for measured in evaluation.measurements:
            kind, _, distance = measured.metric.partition(" ")
            if not distance:
                kept.append(measured)
            elif not measured.coordinates:
                reach = {"reach": predictor.attention_reach} if kind == LOOKBACK else {}
                coordinates = {kind: int(distance), **reach}
                apart.append(replace(measured, metric=self.names.accuracy, coordinates=coordinates))
        apart.sort(key=lambda measured: list(measured.coordinates.items())[:1])
        items = [{key: value for key, value in item.items() if " " not in key} for item in evaluation.items]
        return Evaluation((*apart, *kept), tuple(items))

    def chance(self, difficulty: Gaps) -> float:
        """One of all states."""
        del difficulty
        return 1 / len(self.grammar.emits)

    def memory_bits(self, difficulty: Gaps) -> float:
        """Inside a word, which of its copies it is: little to remember, and long to hold."""
        del difficulty
        return math.log2(self.config.word_copies)

    def notes(self) -> list[str]:
        """What a model without a memory can reach, and what the numbers of the table stand for."""
        known = share_known_by_symbol(self.grammar, self.config.sequence_symbols)
        deepest = max(len(word.letters) for word in self.grammar.words)
        return [
            f"Without a memory, from the present symbol alone, at most {known:.1%} of the states can be named; the "
            f"most ambiguous one takes {deepest} past symbols.",
            "Depth and look-back n stand for n to 2n - 1: the past symbols that a state is known by, and how many "
            "tokens they stretch over.",
        ]


def rounded_down(distance: int) -> int:
    """The largest of 0, 1, 2, 4, 8, ... that is not larger."""
    return 1 << (distance.bit_length() - 1) if distance else 0
