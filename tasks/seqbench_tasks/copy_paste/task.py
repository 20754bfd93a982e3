"""The task plugin of copy-paste."""

import math
from collections.abc import Mapping
from typing import Any

from seqbench.contracts import Batch, Evaluation, Predictor, TaskPlugin
from seqbench_tasks.copy_paste import generate, score
from seqbench_tasks.copy_paste.config import CopyPasteConfig
from seqbench_tasks.copy_paste.presets import PRESETS


class CopyPasteTask(TaskPlugin[CopyPasteConfig]):
    """Repeat a random payload after a separator: [N payload symbols][F filler symbols][separator][the payload again].

    One sample with N = 3 and F = 2; "." is the filler, one constant id repeated, "|" the separator, and "-" marks
    positions without a label:

        position   0  1  2  3  4  5  6  7
        inputs     7  1  4  .  .  |  7  1
        labels     -  -  -  -  -  7  1  4

    A sequence has 2N + F tokens: the last symbol of the paste is only predicted. Position t predicts the symbol that
    stands at t - (N + F): the look-back is N + F tokens for every pasted symbol, and N x log2(alphabet_size) bits
    have to be carried over it. Loss and accuracy count the pasted symbols only.

    The stream of training, the validation set and the test set are seeded apart; single strings can still coincide
    where few exist (two symbols of an alphabet of 32: 1024 strings).
    """

    name = "copy-paste"
    summary = "repeat a random string after a separator, measured over the look-back"
    version = "1"
    config_class = CopyPasteConfig
    presets = PRESETS
    primary_metric = "byte_accuracy"
    higher_is_better = True
    primary_coordinate = "lookback"

    @property
    def vocab_size(self) -> int:
        """Payload symbols, separator, filler and padding."""
        return self.config.vocab_size

    @property
    def longest_sequence(self) -> int:
        """Tokens of a training sequence with the longest payload."""
        return self.config.sequence_length(self.config.maximum_length)

    @property
    def tokens_per_evaluation_call(self) -> int:
        """Tokens of the largest forward call of an evaluation, all of its strings together."""
        return score.largest_call(self.config)

    def training_batch(self, seed: int, index: int, batch_size: int) -> Batch:
        """The index-th training batch of this seed: (batch_size, 2N + F), N the longest payload in it.

        Raises RequestError when seed or index is outside 0 .. 2**64 - 1.
        """
        return generate.training_batch(self.config, seed, index, batch_size)

    def evaluate(self, predictor: Predictor, split: str) -> Evaluation:
        """byte_accuracy and exact_match (fractions, 0 to 1) and loss (nats per symbol), by length and overall.

        Raises ValueError when split is neither "validation" nor "test".
        """
        return score.evaluate(self.config, predictor, split)

    def item_score(self, item: Mapping[str, Any]) -> tuple[float, float]:
        """byte_accuracy of one string, weighted by its symbols."""
        return item["correct_bytes"] / item["bytes"], item["bytes"]

    def report_notes(self, attention_reach: int | None) -> list[str]:
        """What to set the scores beside: chance, bits to remember, and which look-backs attention can bridge."""
        config = self.config
        longest = max(config.test_lengths)
        bits = longest * math.log2(config.alphabet_size)
        filler = f" + {config.filler_length} filler symbols" if config.filler_length else ""
        if attention_reach is None:
            reach = "this model has no finite reach (full attention or recurrence)."
        else:
            beyond = sum(config.lookback(length) > attention_reach for length in config.test_lengths)
            reach = (
                f"this model's attention bridges at most {attention_reach:,} tokens: {beyond} of "
                f"{len(config.test_lengths)} test look-backs are longer and need another memory."
            )
        return [
            f"Chance is {1 / config.alphabet_size:.1%}; the longest test payload, {longest:,} symbols, "
            f"takes {bits:,.0f} bits to remember.",
            f"Look-back = payload length{filler}; {reach}",
        ]
