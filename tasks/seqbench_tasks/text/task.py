"""What tasks that train on windows of a text and measure bits per byte have in common."""

import copy
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from transformers import PreTrainedTokenizerBase

from seqbench.contracts import Batch, TaskPlugin
from seqbench_tasks.text.config import CorpusConfig
from seqbench_tasks.text.corpus import Corpus
from seqbench_tasks.text.openers import open_corpus
from seqbench_tasks.text.tokens import may_lose_text
from seqbench_tasks.text.windows import BYTE_VOCABULARY, longest_window, training_batch

# Windows whose tokens are counted to estimate how long windows are.
_SAMPLED_WINDOWS = 32


class TextTask(TaskPlugin[Any]):
    """A task over a corpus. Its config inherits from `CorpusConfig` and has the field window_bytes.

    An item has the fields bits_per_byte and bytes, which weighs it.
    """

    primary_metric = "bits_per_byte"
    higher_is_better = False
    primary_coordinate = "position"
    options: ClassVar[Mapping[str, str]] = {"data": "data"}
    location_fields = CorpusConfig.LOCATION_FIELDS

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._opened: Corpus | None = None
        self._estimated_sequence: int | None = None

    def with_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> Self:
        """The same text in the tokens of that tokenizer."""
        task = type(self)(self.config)
        task.tokenizer = tokenizer
        return task

    def prepare(self) -> None:
        """Find the text. Raises RequestError when it is not there, or cannot be read."""
        self._opened = open_corpus(self.config, needs_text=self.tokenizer is not None)

    def data_identity(self) -> Mapping[str, Any]:
        """Hashes of the documents, or the revision of a data set of the hub."""
        return self.corpus.identity

    @property
    def corpus(self) -> Corpus:
        """The text, opened when it is first asked for."""
        if self._opened is None:
            self.prepare()
        assert self._opened is not None
        return self._opened

    @property
    def vocab_size(self) -> int:
        """256 byte values, or the ids of the model's own tokenizer."""
        return BYTE_VOCABULARY if self.tokenizer is None else len(self.tokenizer)

    @property
    def longest_sequence(self) -> int:
        """Tokens of the longest training window."""
        return longest_window(self.config.window_bytes, self.tokenizer)

    @property
    def estimated_sequence(self) -> int:
        """The longest of some windows in tokens: a token stands for several bytes, and the bound knows of no text."""
        if self.tokenizer is None:
            return self.longest_sequence
        if self._estimated_sequence is None:
            self._estimated_sequence = self.training_batch(0, 0, _SAMPLED_WINDOWS).input_ids.shape[1]
        return self._estimated_sequence

    def training_batch(self, seed: int, index: int, batch_size: int) -> Batch:
        """The index-th batch of training windows of this seed: (batch_size, up to longest_sequence).

        Raises RequestError when seed or index is outside 0 .. 2**64 - 1.
        """
        return training_batch(self.corpus, seed, index, batch_size, self.config.window_bytes, self.tokenizer)

    def rehearsal(self) -> Self:
        """The same task on the beginning of one held-out document.

        Raises RequestError for a split without documents, and for a tokenizer that does not give back what is measured.
        """
        for split in ("validation", "test"):
            self.corpus.documents(split)
            if self.tokenizer is not None and may_lose_text(self.tokenizer):
                # It is asked for all of the text, which takes as long as that takes.
                self.read_held_out(split)
        task = copy.copy(self)
        task.config = self.smallest_config()
        return task

    @abstractmethod
    def smallest_config(self) -> Any:
        """The config under which as little as possible is read of held-out documents."""

    @abstractmethod
    def read_held_out(self, split: str) -> None:
        """Turn all text of a split that an evaluation reads into tokens. Raises RequestError as `TokenisedText`."""

    def item_score(self, item: Mapping[str, Any]) -> tuple[float, float]:
        """bits_per_byte of one item, weighted by its bytes."""
        return item["bits_per_byte"], item["bytes"]
