"""The task plugin of needle."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqbench.contracts import IGNORED_LABEL, Predictor
from seqbench_tasks.needle.config import TRACKING, NeedleConfig
from seqbench_tasks.needle.generate import hide
from seqbench_tasks.needle.presets import PRESETS
from seqbench_tasks.synthetic import Difficulty, Draws, Names, Samples, SyntheticTask
from seqbench_tasks.synthetic import task as kit
from seqbench_tasks.synthetic.long import CHUNK_TOKENS, answer_logits, answered_part, carries_over
from seqbench_tasks.synthetic.score import score

# Where in the context an answer stands is measured by quarters.
_QUARTERS = 4


@dataclass(frozen=True)
class Length(Difficulty):
    """Sequences of this many tokens, questions included."""

    length: int


class NeedleTask(SyntheticTask[NeedleConfig, Length]):
    """Find needles in a haystack of noise, trained at one length and tested at lengths up to 64 times as long.

    The tasks are those of RULER (arXiv 2404.06654) with single tokens for words and numbers. Retrieval with two needles
    and one query; "!" is the sign of a needle, "?" that of a question, small letters are noise, capitals keys, and "-"
    marks positions without a label:

        inputs     k c ! B 7 e a a ! D 3 m ? D
        labels     - - - - - - - - - - - - - 3

    One needle is RULER's single, several needles its multi-key, several queries its multi-query, where the earlier
    answers stand in the input:

        inputs     k c ! B 7 e a a ! D 3 m ? D 3 ? B
        labels     - - - - - - - - - - - - - 3 - - 7

    variable-tracking hides chains of assignments, each behind the one that it refers to, and asks for all variables
    that got a value, in the order of the chain. One chain of two hops, B = 7, D = B, A = D:

        inputs     ! B 7 e ! D B a c ! A D k ? 7 B D
        labels     - - - - - - - - - - - - - - B D A

    Noise, keys and values have ids of their own; keys of a sample differ, and so do the values of chains. Every needle
    has its place at random. recall is the share of answers that are right, and recall_quarter_N that of answers in the
    N-th quarter of the context.
    """

    name = "needle"
    summary = "find keys, values and chains of variables in noise, at up to 64 times the training length"
    version = "2"
    config_class = NeedleConfig
    presets = PRESETS
    primary_metric = "recall"
    primary_coordinate = "length"
    names = Names(accuracy="recall")

    @property
    def vocab_size(self) -> int:
        """Values, keys, noise and signs."""
        return self.config.vocab_size

    def training_mixture(self) -> Mapping[Length, int]:
        """One length."""
        return {Length(self.config.training_length): 1}

    def test_set(self) -> Mapping[Length, int]:
        """The lengths that the config names."""
        return dict.fromkeys(map(Length, self.config.test_lengths), self.config.test_samples)

    def samples(self, difficulty: Length, draws: Draws) -> Samples:
        """Sequences that end with the questions."""
        config = self.config
        context, needles = hide(config, difficulty.length, draws)
        tracking = config.variant == TRACKING
        answers = np.take_along_axis(needles.left if tracking else needles.right, needles.asked, axis=1)
        quarters = np.take_along_axis(needles.places, needles.asked, axis=1) * _QUARTERS // max(1, context.shape[1])
        # Names follow one another from the value on; values follow their keys.
        first, step = (1, 1) if tracking else (1, 3)
        columns = context.shape[1] + first + step * np.arange(answers.shape[1])

        input_ids = np.concatenate((context, needles.questions), axis=1)
        labels = np.full_like(input_ids, IGNORED_LABEL)
        labels[:, columns] = answers
        metrics = {}
        for quarter in range(_QUARTERS):
            there = np.full_like(labels, IGNORED_LABEL)
            there[:, columns] = np.where(quarters == quarter, answers, IGNORED_LABEL)
            metrics[f"recall_quarter_{quarter + 1}"] = there
        return Samples(input_ids, labels, metrics)

    def chance(self, difficulty: Length) -> float:
        """One of the values, or of the names."""
        del difficulty
        return 1 / (self.config.keys if self.config.variant == TRACKING else self.config.values)

    def sequence_length(self, difficulty: Length) -> int:
        """The length itself."""
        return difficulty.length

    def memory_bits(self, difficulty: Length) -> float:
        """The value of every key; or the chain of names that starts from every value."""
        del difficulty
        config = self.config
        if config.variant == TRACKING:
            return math.log2(math.perm(config.keys, config.names))
        return config.needles * math.log2(config.values)

    def sample_bits(self, difficulty: Length) -> float:
        """The noise alone."""
        noise = difficulty.length - self.config.shortest_length
        return noise * math.log2(self.config.noise)

    def notes(self) -> list[str]:
        """What knowing the needles alone gives, and how long sequences are read."""
        config = self.config
        longest = max(config.test_lengths)
        seen = config.names if config.variant == TRACKING else config.needles
        what = "names" if config.variant == TRACKING else "values"
        lines = [f"The longest test sequence is {longest / config.training_length:g} times as long as in training."]
        if seen > 1:
            lines.append(f"A model that answers with any of the {seen} {what} in the context scores {1 / seen:.1%}.")
        if longest > kit.TOKENS_PER_CALL:
            lines.append(
                f"Sequences of more than {kit.TOKENS_PER_CALL:,} tokens are read in chunks of {CHUNK_TOKENS:,} with "
                "the state carried on; a model without a state takes them in one call. Items say which, under protocol."
            )
        return lines

    @property
    def tokens_per_evaluation_call(self) -> int:
        """Tokens of the largest forward call of a model that carries a state."""
        sizes = [
            (self.sequence_length(difficulty), count)
            for rungs in (self.validation_set(), self.test_set())
            for difficulty, count in rungs.items()
        ]
        limit = kit.TOKENS_PER_CALL
        return max(min(limit // tokens, count) * tokens if tokens <= limit else CHUNK_TOKENS for tokens, count in sizes)

    def score(self, predictor: Predictor, samples: Samples) -> list[dict[str, Any]]:
        """Long sequences with the state carried on, where the model has one; which way it was is part of a record."""
        carried = carries_over(predictor, samples, kit.TOKENS_PER_CALL)
        records = score(answer_logits(predictor, samples, carried=carried), answered_part(samples), self.names)
        protocol = "carried state" if carried else "one call"
        return [{"protocol": protocol, **record} for record in records]
