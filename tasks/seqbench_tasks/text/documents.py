"""Documents: texts that can be read from any byte on, wherever they are kept."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from seqbench.errors import RequestError
from seqbench_tasks.text.bad_records import BadRecords
from seqbench_tasks.text.open_files import open_file, stamp_of
from seqbench_tasks.text.scan import TextFacts

Integers = NDArray[np.int64]
Digests = NDArray[np.uint64]
_Number = TypeVar("_Number", np.int64, np.uint64)


class DamagedSegment(RequestError):
    """A segment is not what was written; it has been set aside."""


class DocumentFile(ABC):
    """A file that holds documents one behind the other.

    Args:
        path: of the file.
        sizes: (documents,) bytes of each.
        digests: (documents,) the first 64 bits of the SHA-256 of each.
        invalid: number of a document that is no UTF-8 -> its first byte that is not.
    """

    def __init__(self, path: Path, sizes: Integers, digests: Digests, invalid: Mapping[int, int]) -> None:
        self.path, self.sizes, self.digests, self.invalid = path, sizes, digests, invalid
        self._offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes)))

    @abstractmethod
    def name(self, number: int) -> str:
        """What the user knows a document by."""

    @abstractmethod
    def require_unchanged(self) -> None:
        """Raise RequestError when the file is no longer what it was."""

    def read(self, number: int, start: int, stop: int) -> bytes:
        """Bytes start..stop-1 of one document. Raises RequestError when the file is not what it was."""
        try:
            self.require_unchanged()
            with open_file(self.path) as file:
                file.seek(int(self._offsets[number]) + start)
                content = file.read(stop - start)
        except OSError as error:
            raise RequestError(f"{self.path} can no longer be read: {error}") from error
        if len(content) != stop - start:
            raise RequestError(f"{self.path} has become shorter while it was in use; type the command again")
        return content


class TextFile(DocumentFile):
    """A file of the user's that is one document.

    Args:
        path: of the file.
        name: what to call it.
        facts: of its content.
        stamp: `stamp_of` the file before it was looked at.
    """

    def __init__(self, path: Path, name: str, facts: TextFacts, stamp: tuple[int, int]) -> None:
        invalid = {} if facts.invalid_at is None else {0: facts.invalid_at}
        super().__init__(path, np.array([facts.size], dtype=np.int64), digests_of([facts.sha256]), invalid)
        self._name, self._stamp = name, stamp

    def name(self, number: int) -> str:
        """The name that it was given."""
        del number
        return self._name

    def require_unchanged(self) -> None:
        """Raise RequestError when size or time of change are others than before."""
        if stamp_of(self.path) != self._stamp:
            raise RequestError(f"{self.path} was changed while it was in use; type the command again")


def digests_of(sha256: Sequence[str]) -> Digests:
    """The first 64 bits of hashes in hexadecimal digits, (hashes,)."""
    return np.array([int(digest[:16], 16) for digest in sha256], dtype=np.uint64)


@dataclass(frozen=True)
class Document:
    """One text. `name` is what the user knows it by; `size` is in bytes."""

    name: str
    size: int
    _file: DocumentFile
    _number: int
    _first: int

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes start..stop-1; without `stop`, to the end. Raises RequestError when the file is not what it was."""
        stop = self.size if stop is None else min(stop, self.size)
        return self._file.read(self._number, self._first + start, self._first + max(start, stop))


class DocumentTable(Sequence[Document]):
    """Documents as columns, so that millions of them take little memory; `table[i]` is a `Document`.

    Args:
        files: what the documents lie in.
        file_numbers: (documents,) the number in `files` of what each lies in.
        numbers: (documents,) of the document within its file.
        first: (documents,) byte of it that this document begins with, for parts of documents; else 0.
        sizes: (documents,) bytes.
    """

    def __init__(
        self, files: Sequence[DocumentFile], file_numbers: Integers, numbers: Integers, first: Integers, sizes: Integers
    ) -> None:
        self._files, self.file_numbers, self._numbers = files, file_numbers, numbers
        self._first, self.sizes = first, sizes

    @classmethod
    def of(cls, files: Sequence[DocumentFile], needs_text: bool, bad: BadRecords) -> "DocumentTable":
        """All documents of some files, in their order; with `needs_text` those that are UTF-8, the others being bad.

        Raises RequestError when a document is bad and that is fatal.
        """
        keep = [np.ones(len(file.sizes), dtype=np.bool_) for file in files]
        for file, kept in zip(files, keep, strict=True):
            for number, byte in file.invalid.items() if needs_text else ():
                bad.add(file.name(number), f"byte {byte} is not UTF-8, which the model's tokenizer needs")
                kept[number] = False
        numbers = [np.flatnonzero(kept) for kept in keep]
        file_numbers = np.repeat(np.arange(len(files)), [len(kept) for kept in numbers])
        sizes = [file.sizes[kept] for file, kept in zip(files, numbers, strict=True)]
        nothing = [np.zeros(0, dtype=np.int64)]
        first = np.zeros(len(file_numbers), dtype=np.int64)
        return cls(files, file_numbers, np.concatenate(numbers or nothing), first, np.concatenate(sizes or nothing))

    @classmethod
    def concatenate(cls, tables: Sequence["DocumentTable"]) -> "DocumentTable":
        """The documents of several tables, one table behind the other."""
        if not tables:
            return cls([], *(np.zeros(0, dtype=np.int64) for _ in range(4)))
        counts = [len(table._files) for table in tables]
        shifts = np.cumsum([0, *counts[:-1]])
        return cls(
            [file for table in tables for file in table._files],
            np.concatenate([table.file_numbers + shift for table, shift in zip(tables, shifts, strict=True)]),
            np.concatenate([table._numbers for table in tables]),
            np.concatenate([table._first for table in tables]),
            np.concatenate([table.sizes for table in tables]),
        )

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> "DocumentTable": ...
    def __getitem__(self, index: int | slice) -> "Document | DocumentTable":
        if isinstance(index, slice):
            return self.select(np.arange(len(self), dtype=np.int64)[index])
        file, number = self._files[self.file_numbers[index]], int(self._numbers[index])
        first, size = int(self._first[index]), int(self.sizes[index])
        part = "" if size == file.sizes[number] else f"[{first}:{first + size}]"
        return Document(f"{file.name(number)}{part}", size, file, number, first)

    def read(self, index: int, start: int, stop: int) -> bytes:
        """Bytes start..stop-1 of a document."""
        first = int(self._first[index])
        return self._files[self.file_numbers[index]].read(int(self._numbers[index]), first + start, first + stop)

    def select(self, rows: Integers) -> "DocumentTable":
        """The documents at `rows`, (n,), in that order."""
        return DocumentTable(
            self._files, self.file_numbers[rows], self._numbers[rows], self._first[rows], self.sizes[rows]
        )

    def parts(self, first: Integers, sizes: Integers) -> "DocumentTable":
        """Of every document the part that begins at byte `first` and has `sizes` bytes, both (documents,)."""
        return DocumentTable(self._files, self.file_numbers, self._numbers, self._first + first, sizes)

    @property
    def sha256(self) -> str:
        """A hash of all documents in their order, of which every bit of every document is a part."""
        columns = (self.digests, self._first, self.sizes)
        return hashlib.sha256(b"".join(column.astype("<u8").tobytes() for column in columns)).hexdigest()

    @property
    def content_digests(self) -> Digests:
        """(documents,) the first 64 bits of the SHA-256 of each document, which is read where it is a part of one."""
        digests = self.digests.copy()
        for row in np.flatnonzero(self._of_files([file.sizes for file in self._files]) != self.sizes).tolist():
            digests[row] = digests_of([hashlib.sha256(self.read(row, 0, int(self.sizes[row]))).hexdigest()])[0]
        return digests

    @property
    def digests(self) -> Digests:
        """(documents,) the first 64 bits of each whole document's SHA-256."""
        return self._of_files([file.digests for file in self._files])

    def _of_files(self, columns: Sequence[NDArray[_Number]]) -> NDArray[_Number]:
        """(documents,) from a column of every file what stands there for each document's whole."""
        if not columns:
            return np.zeros(0, dtype=np.uint64)
        first = np.concatenate(([0], np.cumsum([len(column) for column in columns])))[self.file_numbers]
        return np.concatenate(columns)[first + self._numbers]
