"""The task plugin of byte language modelling."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from seqbench.contracts import Evaluation, Predictor, PublishedScore
from seqbench_tasks.byte_lm.config import WINDOWS, ByteLmConfig
from seqbench_tasks.byte_lm.evaluation import curve_of, evaluate, read_held_out
from seqbench_tasks.byte_lm.presets import PRESETS
from seqbench_tasks.byte_lm.published import published_scores
from seqbench_tasks.text.scoring import call_tokens
from seqbench_tasks.text.task import TextTask
from seqbench_tasks.text.windows import longest_window


class ByteLmTask(TextTask):
    """Predict the next byte of any text.

    Training cuts documents into windows and sees all of them once in each epoch, in a seeded order. A window of 6 bytes
    at the beginning of the document "Call me Ishmael", and the next one; "^" is the id 254, which begins a document:

        inputs   ^ C a l l _      _ m e _ I s
        labels   C a l l _ m      m e _ I s h

    Every byte is a label exactly once in an epoch, no window crosses from one document into the next, and the last
    window of a document is shorter. A model that has a tokenizer of its own reads the same windows in its tokens;
    characters that a border cuts belong to the window in which they begin.

    Held-out documents are scored in bits per byte, whatever a model's tokens are. An item is a document; where there
    are fewer than ten, a passage of 16 KiB.
    """

    name = "byte-lm"
    summary = "bits per byte of held-out text, after training on any text"
    version = "1"
    config_class = ByteLmConfig
    presets = PRESETS

    def published(self) -> Sequence[PublishedScore]:
        """Scores on enwik8, where it is that and divided as usual."""
        return published_scores(self.config)

    @property
    def tokens_per_evaluation_call(self) -> int:
        """Tokens of the largest call; a window of the protocol is read at once where no state can be carried."""
        window = self.config.parsed_protocol().window
        longest = 0 if window is None else longest_window(window, self.tokenizer)
        return max(call_tokens(self.vocab_size), longest)

    def evaluate(self, predictor: Predictor, split: str) -> Evaluation:
        """bits_per_byte by position behind a fresh state (upper end of the bucket in bytes), and over everything.

        Raises RunFailure("protocol") when the model cannot follow the protocol, ValueError when split is neither
        "validation" nor "test".
        """
        if split not in ("validation", "test"):
            raise ValueError(f"split must be 'validation' or 'test', not {split!r}")
        return evaluate(self.config, predictor, self.corpus.documents(split), split, self.tokenizer)

    def smallest_config(self) -> ByteLmConfig:
        """One window of each split."""
        window, config = self.config.window_bytes, self.config
        return dataclasses.replace(
            config,
            validation_bytes=min(window, config.validation_bytes),
            test_bytes=min(window, config.test_bytes),
        )

    def read_held_out(self, split: str) -> None:
        """Turn all text of a split that an evaluation reads into tokens."""
        read_held_out(self.config, self.corpus.documents(split), split, self.tokenizer)

    def item_curve(self, item: Mapping[str, Any]) -> list[tuple[float, float, float]]:
        """Upper end, bits per byte and bytes of each position bucket of one document or passage."""
        return curve_of(item)

    def report_notes(self, attention_reach: int | None) -> list[str]:
        """What was read, and how."""
        del attention_reach
        protocol = self.config.parsed_protocol().name
        how = f"{protocol}, like training windows" if self.config.protocol == WINDOWS else protocol
        return [*self.corpus.notes, f"Held-out text is read under the protocol {how}."]
