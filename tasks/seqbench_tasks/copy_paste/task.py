"""The task plugin of copy-paste."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from seqbench.contracts import IGNORED_LABEL
from seqbench_tasks.copy_paste.config import CopyPasteConfig
from seqbench_tasks.copy_paste.presets import PRESETS
from seqbench_tasks.synthetic import Difficulty, Draws, Names, Samples, SyntheticTask


@dataclass(frozen=True)
class Payload(Difficulty):
    """Payloads of one length, in symbols."""

    length: int


class CopyPasteTask(SyntheticTask[CopyPasteConfig, Payload]):
    """Repeat a random payload after a separator: [N payload symbols][F filler symbols][separator][the payload again].

    One sample with N = 3 and F = 2; "." is the filler, one constant id repeated, "|" the separator, and "-" marks
    positions without a label:

        position   0  1  2  3  4  5  6  7
        inputs     7  1  4  .  .  |  7  1
        labels     -  -  -  -  -  7  1  4

    A sequence has 2N + F tokens: the last symbol of the paste is only predicted. Position t predicts the symbol that
    stands at t - (N + F): the look-back is N + F tokens for every pasted symbol, and N x log2(alphabet_size) bits
    have to be carried over it. Loss and accuracy count the pasted symbols only.
    """

    name = "copy-paste"
    summary = "repeat a random string after a separator, measured over the look-back"
    version = "2"
    config_class = CopyPasteConfig
    presets = PRESETS
    primary_metric = "byte_accuracy"
    primary_coordinate = "lookback"
    names = Names("byte_accuracy", "correct_bytes", "bytes")

    @property
    def vocab_size(self) -> int:
        """Payload symbols, separator, filler and padding."""
        return self.config.vocab_size

    @property
    def mixes_rows(self) -> bool:
        """As the config says: every training sequence draws its own length, or all of a batch have one."""
        return self.config.mixed_lengths

    @property
    def padding(self) -> int:
        """Id at masked positions of mixed-length batches."""
        return self.config.padding

    def training_mixture(self) -> Mapping[Payload, int]:
        """Every length of the training range, equally often."""
        return self._lengths_up_to(self.config.maximum_length)

    def training_mixture_at(self, batch_index: int) -> Mapping[Payload, int]:
        """The lengths that the curriculum has reached, equally often."""
        return self._lengths_up_to(self.config.largest_training_length(batch_index))

    def validation_set(self) -> Mapping[Payload, int]:
        """A few lengths spread over the training range."""
        return dict.fromkeys(map(Payload, self.config.validation_lengths), self.config.validation_samples)

    def test_set(self) -> Mapping[Payload, int]:
        """The lengths that the config names, which may go beyond training."""
        return dict.fromkeys(map(Payload, self.config.test_lengths), self.config.test_samples)

    @property
    def longest_sequence(self) -> int:
        """Tokens of a training sequence with the longest payload."""
        return self.config.sequence_length(self.config.maximum_length)

    def sequence_length(self, difficulty: Payload) -> int:
        """2N + F: known without making a sample, which settings can make too long for any memory."""
        return self.config.sequence_length(difficulty.length)

    def samples(self, difficulty: Payload, draws: Draws) -> Samples:
        """Strings of 2N + F tokens with N labels each."""
        config, length = self.config, difficulty.length
        payloads = draws.below(config.alphabet_size, length)
        separator = config.lookback(length)
        shape = (draws.count, config.sequence_length(length))
        input_ids, labels = np.full(shape, config.filler), np.full(shape, IGNORED_LABEL)
        input_ids[:, :length] = payloads
        input_ids[:, separator] = config.separator
        input_ids[:, separator + 1 :] = payloads[:, :-1]
        labels[:, separator:] = payloads
        return Samples(input_ids, labels)

    def chance(self, difficulty: Payload) -> float:
        """One symbol of the alphabet."""
        del difficulty
        return 1 / self.config.alphabet_size

    def lookback(self, difficulty: Payload) -> int:
        """The same for every pasted symbol."""
        return self.config.lookback(difficulty.length)

    def memory_bits(self, difficulty: Payload) -> float:
        """The payload has to be known when the paste begins."""
        return difficulty.length * math.log2(self.config.alphabet_size)

    def sample_bits(self, difficulty: Payload) -> float:
        """The payload is all there is."""
        return self.memory_bits(difficulty)

    def notes(self) -> list[str]:
        """What the look-back is made of."""
        filler = f" + {self.config.filler_length} filler symbols" if self.config.filler_length else ""
        return [f"Look-back = payload length{filler}."]

    def evaluation_stream(self, difficulty: Payload) -> int:
        """The length: the strings of version 1, which stored results rest on."""
        return difficulty.length

    def _lengths_up_to(self, longest: int) -> Mapping[Payload, int]:
        return dict.fromkeys(map(Payload, range(self.config.minimum_length, longest + 1)), 1)
