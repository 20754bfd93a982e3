"""A corpus: the documents of each split, and what identifies them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from seqbench_tasks.text.documents import DocumentTable
from seqbench_tasks.text.window_order import WindowOrder


class Corpus(ABC):
    """Documents in three splits, "train", "validation" and "test".

    Attributes:
        arriving: whether training documents are fetched as they are needed.
    """

    arriving: bool = False

    def __init__(self) -> None:
        self._orders: dict[int, WindowOrder] = {}

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """What decides the documents, as plain JSON data: hashes of their content, and never where they lie."""

    @property
    @abstractmethod
    def notes(self) -> list[str]:
        """What a reader of a result has to know of the corpus, in lines."""

    @abstractmethod
    def documents(self, split: str) -> DocumentTable:
        """All documents of a split; of a training split that is still arriving, those that are there.

        Raises RequestError when there are none, or `split` is another word.
        """

    @abstractmethod
    def training_part(self, number: int) -> DocumentTable | None:
        """The number-th part of the training documents, in order of arrival; None behind the last."""

    def window_order(self, window_bytes: int) -> WindowOrder:
        """The training windows of that length."""
        if window_bytes not in self._orders:
            self._orders[window_bytes] = WindowOrder(self, window_bytes)
        return self._orders[window_bytes]
