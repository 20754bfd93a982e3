"""Where the documents of a store come from, record by record."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Record:
    """A text in a file: what stands behind the file's name to say which, and its bytes, to be read before the next."""

    name: str
    pieces: Iterator[bytes]


@dataclass(frozen=True)
class BadRecord:
    """A place in a file, and why there is no text."""

    name: str
    fault: str


@dataclass(frozen=True)
class LeftOut:
    """A place in a file that is no document and is none on purpose, such as a link, and why."""

    name: str
    why: str


Found = Record | BadRecord | LeftOut


class Source(Protocol):
    """Where the documents of a store come from: always the same ones in the same order."""

    def open(self, state: Any) -> "RecordStream":
        """The records behind the place that `state` (plain JSON data) describes; None is the beginning."""


class RecordStream(Protocol):
    """Records of a source, in order, each read before the next."""

    def next_record(self) -> Found | None:
        """The next record; None behind the last. Its pieces may raise DamagedText."""

    def state(self) -> Any:
        """The place behind the last record that was handed out."""

    def close(self) -> None:
        """Let go of files and connections."""


class DamagedText(Exception):
    """The bytes of a record cannot be read to the end; the message says why."""
