"""The task plugin of repeat-after-me."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from seqbench_tasks.repeat_after_me.config import COPY, DUPLICATE, RepeatAfterMeConfig
from seqbench_tasks.repeat_after_me.generate import lay_out, strings
from seqbench_tasks.repeat_after_me.presets import PRESETS
from seqbench_tasks.streams import below
from seqbench_tasks.synthetic import Difficulty, Draws, Samples, SyntheticTask


@dataclass(frozen=True)
class Context(Difficulty):
    """A training context: strings of random lengths, one behind the other."""


@dataclass(frozen=True)
class Length(Difficulty):
    """Single strings of one length, in letters."""

    length: int


class RepeatAfterMeTask(SyntheticTask[RepeatAfterMeConfig, Context | Length]):
    """Repeat a random string, or what follows an n-gram in it (arXiv 2402.01032).

    A training sequence of the variant copy, three strings in a context of 17 tokens; "-" marks positions without a
    label. The last string does not fit, so nothing is asked of it:

        position   0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15
        inputs     $  c  a  |  c  a  .  $  b  |  b  .  $  a  b  |
        labels     -  -  -  c  a  .  -  -  -  b  .  -  -  -  -  -

    The other variants, with n-grams of 2 letters and answers of 2. prefix-ngram names the n-gram before the string:

        inputs     $  a  d  |  c  a  d  b  a  |  b
        labels     -  -  -  -  -  -  -  -  -  b  a

    suffix-ngram names it behind the string, and the answer goes on from it:

        inputs     $  c  a  d  b  a  |  a  d  b
        labels     -  -  -  -  -  -  -  -  b  a

    duplicate-ngram trains like copy and tests on strings in which one n-gram stands twice: a model that copies by
    looking for the letters that it has just written finds two places.

        inputs     $  c  a  d  b  c  a  |  c  a  d  b  c
        labels     -  -  -  -  -  -  -  c  a  d  b  c  a

    Test strings stand alone, and their letters alone are scored, not the end sign. An n-gram that occurs more than once
    asks for what follows its first occurrence. Places of n-grams are drawn so that the whole answer lies in the string.
    """

    name = "repeat-after-me"
    summary = "repeat a string, or what follows an n-gram in it, trained short and tested long"
    version = "2"
    config_class = RepeatAfterMeConfig
    presets = PRESETS
    primary_coordinate = "length"

    @property
    def vocab_size(self) -> int:
        """Letters, "$", "|" and "."."""
        return self.config.vocab_size

    def training_mixture(self) -> Mapping[Context | Length, int]:
        """Contexts that are filled with strings."""
        return {Context(): 1}

    def validation_set(self) -> Mapping[Context | Length, int]:
        """Single strings of lengths from training."""
        return dict.fromkeys(map(Length, self.config.validation_lengths), self.config.validation_samples)

    def test_set(self) -> Mapping[Context | Length, int]:
        """Single strings of the lengths that the config names."""
        return dict.fromkeys(map(Length, self.config.test_lengths), self.config.test_samples)

    def samples(self, difficulty: Context | Length, draws: Draws) -> Samples:
        """Filled contexts, or single strings that end with the last letter to be answered."""
        config = self.config
        if isinstance(difficulty, Length):
            lengths = np.full((draws.count, 1), difficulty.length)
            # Without the end sign.
            return lay_out(strings(config, lengths, draws, test=True), config.example_length(difficulty.length) - 1)
        span = config.maximum_length - config.minimum_length + 1
        lengths = config.minimum_length + below(draws.numbers(config.strings_per_context), span)
        return lay_out(strings(config, lengths, draws, test=False), config.context_length)

    def chance(self, difficulty: Context | Length) -> float:
        """One letter of the alphabet."""
        del difficulty
        return 1 / self.config.alphabet_size

    def lookback(self, difficulty: Context | Length) -> int | None:
        """Of a copied letter; where an n-gram is asked for, every string has another one."""
        if isinstance(difficulty, Context) or self.config.asks_for_ngram:
            return None
        return difficulty.length

    def memory_bits(self, difficulty: Context | Length) -> float | None:
        """The string has to be known when its copy begins; a duplicate is known from where it stands first."""
        if isinstance(difficulty, Context) or self.config.asks_for_ngram:
            return None
        new = difficulty.length - (self.config.ngram if self.config.variant == DUPLICATE else 0)
        return new * math.log2(self.config.alphabet_size)

    def sample_bits(self, difficulty: Context | Length) -> float | None:
        """The letters of a single string, of which an n-gram that is to stand twice takes some."""
        if isinstance(difficulty, Context):
            return None
        free = difficulty.length - (self.config.ngram if self.config.variant == DUPLICATE else 0)
        return free * math.log2(self.config.alphabet_size)

    @property
    def first_token(self) -> int:
        """Every string begins with "$", also inside a context."""
        return self.config.start

    def notes(self) -> list[str]:
        """The bound on models whose state does not grow, where the whole string has to be carried."""
        config = self.config
        if config.variant == COPY:
            longest = max(config.test_lengths)
            bits = math.log2(config.alphabet_size)
            return [
                f"A state of a fixed size of fewer than length x {bits:.2f} - 1 bits errs on more than half of the "
                f"strings of that length: {longest * bits - 1:,.0f} bits at {longest} letters (arXiv 2402.01032)."
            ]
        if config.variant == DUPLICATE:
            return [f"Each test string holds one {config.ngram}-gram twice; training strings are plain."]
        return [f"An answer is the {config.answer_length} letters behind the first occurrence of an n-gram."]
