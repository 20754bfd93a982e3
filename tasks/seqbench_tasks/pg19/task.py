"""The task plugin of PG-19."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

from seqbench.contracts import Evaluation, Predictor, PublishedScore
from seqbench_tasks.pg19.books import BookScore, read_book
from seqbench_tasks.pg19.config import PG19Config
from seqbench_tasks.pg19.presets import PRESETS
from seqbench_tasks.pg19.published import PUBLISHED
from seqbench_tasks.pg19.summary import measure
from seqbench_tasks.text.documents import Document
from seqbench_tasks.text.followable import require_followable
from seqbench_tasks.text.protocol import parse_protocol
from seqbench_tasks.text.scoring import call_tokens
from seqbench_tasks.text.task import TextTask
from seqbench_tasks.text.tokens import TokenSequence, read_tokens
from seqbench_tasks.text.windows import longest_window

# Bits and bytes of an item's position buckets, in front of the bucket's end.
_BITS, _BYTES = "bits_to_", "bytes_to_"


class PG19Task(TextTask):
    """Bits per byte of unseen books by position, after training on windows of other books.

    A training window begins with what stands before it, or with the id 254 at a book's first byte; every byte of it is
    a label. A window of 6 bytes at the beginning of "Call me Ishmael", "^" being 254:

        inputs   ^ C a l l _
        labels   C a l l _ m

    A test book is read once, from its first byte to `context_bytes`, under one protocol for all models: the state
    carried from beginning to end, made fresh every K bytes, or windows that are encoded anew. Every byte is predicted
    exactly once, the first one from 254. Models with a tokenizer of their own read tokens, whose bits are spread over
    the bytes that they stand for; without a token for the beginning, the first token costs 8 bits a byte.

    An item is a book: comparisons by item are paired by book, and every interval is over books.
    """

    name = "pg19"
    summary = "bits per byte of whole books by position, to 512 KiB and beyond"
    version = "1"
    config_class = PG19Config
    presets = PRESETS

    def __init__(self, config: PG19Config) -> None:
        super().__init__(config)
        self._protocol = parse_protocol(config.protocol)
        self._longest: int | None = None

    def published(self) -> Sequence[PublishedScore]:
        """Scores on the test books of PG-19."""
        return PUBLISHED

    @property
    def tokens_per_evaluation_call(self) -> int:
        """Tokens of the largest call; a window of the protocol is read at once where no state can be carried."""
        window = min(self._protocol.window or 0, self.config.context_bytes)
        longest = longest_window(window, self.tokenizer) if window else 0
        return max(call_tokens(self.vocab_size), longest)

    def evaluate(self, predictor: Predictor, split: str) -> Evaluation:
        """bits_per_byte by position and over everything, level, slope, and intervals over books; see `measure`.

        Test books that an interrupted run has read are not read again. Whether the model can follow the protocol is
        found out at the first validation already.

        Raises RunFailure("protocol") when it cannot, ValueError when split is neither "validation" nor "test".
        """
        if split not in ("validation", "test"):
            raise ValueError(f"split must be 'validation' or 'test', not {split!r}")
        require_followable(predictor, self._protocol, self._longest_test_book())
        books = [
            self._read(predictor, split, number, document) for number, document in enumerate(self._documents(split))
        ]
        ends = self.config.bucket_ends(split)
        items = tuple(_item(number, book, ends) for number, book in enumerate(books))
        return Evaluation(measure(books, ends, split), items)

    def rehearsal(self) -> Self:
        """The same task on the beginning of the first book; that the longest one can be read is found out here too."""
        longest, task = self._longest_test_book(), super().rehearsal()
        task._longest = longest
        return task

    def smallest_config(self) -> PG19Config:
        """The first position bucket of one book, or the first kilobyte."""
        context = min(self.config.context_bytes, self.config.first_bucket_bytes, 1024)
        return dataclasses.replace(
            self.config, context_bytes=context, validation_bytes=context, test_books=1, validation_books=1
        )

    def read_held_out(self, split: str) -> None:
        """Turn all books of a split, as far as they are read, into tokens."""
        for document in self._documents(split):
            self._tokens(document, split)

    def item_curve(self, item: Mapping[str, Any]) -> list[tuple[float, float, float]]:
        """Position, bits per byte and bytes of each position bucket of one book."""
        sizes = {int(key.removeprefix(_BYTES)): value for key, value in item.items() if key.startswith(_BYTES)}
        return [(end, item[f"{_BITS}{end}"] / size, size) for end, size in sorted(sizes.items())]

    def report_notes(self, attention_reach: int | None) -> list[str]:
        """How the books were read, and what is known of them."""
        del attention_reach
        return [
            f"Test books are read to {self.config.context_bytes:,} bytes under the protocol {self.config.protocol}."
            " Intervals are over books.",
            *self.corpus.notes,
        ]

    def _documents(self, split: str) -> list[Document]:
        documents = self.corpus.documents(split)
        wanted = self.config.test_books if split == "test" else self.config.validation_books
        return [documents[number] for number in range(min(len(documents), wanted or len(documents)))]

    def _tokens(self, document: Document, split: str) -> TokenSequence:
        return read_tokens(document.read, document.size, self.config.context_of(split), self.tokenizer)

    def _longest_test_book(self) -> int:
        """Tokens of the longest test book, as far as it is read."""
        if self._longest is None:
            longest = max(self._documents("test"), key=lambda document: document.size)
            self._longest = self._tokens(longest, "test").length
        return self._longest

    def _read(self, predictor: Predictor, split: str, number: int, document: Document) -> BookScore:
        def compute() -> dict[str, Any]:
            tokens, ends = self._tokens(document, split), self.config.bucket_ends(split)
            return read_book(predictor, document.name, tokens, self._protocol, ends).record()

        # The validation books are read anew at every look during training.
        record = predictor.record(f"test {number} {document.name}", compute) if split == "test" else compute()
        return BookScore.from_record(record)


def _item(number: int, book: BookScore, bucket_ends: Sequence[int]) -> dict[str, Any]:
    """A book as a flat record."""
    item: dict[str, Any] = {
        "index": number,
        "book": book.name,
        "bytes": book.bytes,
        "tokens": book.tokens,
        "bits_per_byte": book.total_bits / book.bytes,
    }
    for end, bits, size in zip(bucket_ends, book.bits, book.sizes, strict=False):
        item |= {f"{_BITS}{end}": bits, f"{_BYTES}{end}": size}
    return item
