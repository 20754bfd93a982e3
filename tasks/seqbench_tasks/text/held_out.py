"""Which documents are for training, and which are held out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from seqbench.errors import RequestError
from seqbench_tasks.text.config import CorpusConfig
from seqbench_tasks.text.documents import DocumentTable
from seqbench_tasks.text.utf8 import LONGEST_CHARACTER, continues_character

Mask = NDArray[np.bool_]

SPLITS = ("train", "validation", "test")
# Where whole documents are held out, each of the three splits needs one.
_FEWEST_DOCUMENTS = 3


@dataclass(frozen=True)
class HeldOutRule:
    """How documents that belong to no split yet are divided.

    Attributes:
        kind: "documents", "tail" or "auto", as in the config.
        fractions: split -> share held out for it; a split that is not named gets nothing.
        seed: another one holds out other documents.
    """

    kind: str
    fractions: Mapping[str, float]
    seed: int

    @classmethod
    def of(cls, config: CorpusConfig) -> "HeldOutRule":
        """As the config says."""
        fractions = {"validation": config.validation_fraction, "test": config.test_fraction}
        return cls(config.held_out, fractions, config.held_out_seed)

    def only(self, splits: Iterable[str]) -> "HeldOutRule":
        """The rule that holds out for these splits and no other."""
        return replace(self, fractions={split: self.fractions[split] for split in splits})

    def divide(self, table: DocumentTable) -> dict[str, DocumentTable]:
        """All of `table` as train, validation and test.

        Equal documents come into the same split, which depends on their content and on no order or name. A split with a
        share above zero gets a document, however few there are.
        """
        distinct = len(np.unique(table.digests))
        if self.kind == "tail" or (self.kind == "auto" and distinct < _FEWEST_DOCUMENTS):
            return self._tails(table)
        masks = self._masks(table)
        for split in SPLITS[:0:-1]:
            free = masks["train"]
            if self.fractions.get(split) and not masks[split].any() and free.any():
                places = self._places(table)
                masks[split] = free & (places == places[free].min())
                masks["train"] = free & ~masks[split]
        return _selected(table, masks)

    def divide_arriving(self, table: DocumentTable) -> dict[str, DocumentTable]:
        """The same for documents of which others are still to come: by the hash of each alone.

        Raises RequestError when the tails of documents were asked for.
        """
        if self.kind == "tail":
            raise RequestError("held_out=tail needs a text of which all is here; type task.held_out=documents")
        return _selected(table, self._masks(table))

    def _masks(self, table: DocumentTable) -> dict[str, Mask]:
        """Split -> whether each document belongs to it."""
        places, test = self._places(table), self.fractions.get("test", 0.0)
        masks = {"test": places < test}
        masks["validation"] = ~masks["test"] & (places < test + self.fractions.get("validation", 0.0))
        masks["train"] = ~masks["test"] & ~masks["validation"]
        return masks

    def _places(self, table: DocumentTable) -> NDArray[np.float64]:
        """(documents,) numbers from 0 to 1, uniform, which follow from a document's content and the seed alone."""
        # The content's hash is uniform already; multiplying and folding makes each seed another order.
        mixed = (table.digests ^ np.uint64(self.seed)) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
        return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53

    def _tails(self, table: DocumentTable) -> dict[str, DocumentTable]:
        """Of every document the last part for the test and the part before it for validation."""
        test = self.fractions.get("test", 0.0)
        train = 1 - test - self.fractions.get("validation", 0.0)
        cuts = np.zeros((len(table), 4), dtype=np.int64)
        for row, size in enumerate(table.sizes.tolist()):
            ends = (round(size * train), round(size * (1 - test)))
            cuts[row] = (0, *(_character_start(table, row, end) for end in ends), size)
        parts = {}
        for number, split in enumerate(SPLITS):
            first, sizes = cuts[:, number], cuts[:, number + 1] - cuts[:, number]
            parts[split] = table.parts(first, sizes).select(np.flatnonzero(sizes))
        return parts


def duplicates(splits: Mapping[str, DocumentTable]) -> int:
    """Held-out documents, or parts of documents, that training contains as well, byte for byte."""
    held_out = DocumentTable.concatenate([splits[split] for split in SPLITS[1:]])
    train = splits["train"]
    # Parts have to be read for it: only those of which another has the length.
    held_out = held_out.select(np.flatnonzero(np.isin(held_out.sizes, train.sizes)))
    train = train.select(np.flatnonzero(np.isin(train.sizes, held_out.sizes)))
    return int(np.isin(held_out.content_digests, train.content_digests).sum())


def _selected(table: DocumentTable, masks: Mapping[str, Mask]) -> dict[str, DocumentTable]:
    return {split: table.select(np.flatnonzero(masks[split])) for split in SPLITS}


def _character_start(table: DocumentTable, row: int, byte: int) -> int:
    """`byte`, or where the character begins that it is in the middle of."""
    if byte in (0, int(table.sizes[row])):
        return byte
    first = max(0, byte - LONGEST_CHARACTER + 1)
    piece = table.read(row, first, byte + 1)
    starts = [place for place, value in enumerate(piece, start=first) if not continues_character(value)]
    return starts[-1] if starts else byte
