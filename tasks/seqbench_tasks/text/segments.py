"""Segments of a store: some documents in one file, and an index that says what they are and that they are whole."""

import functools
import hashlib
import os
from itertools import count
from pathlib import Path
from typing import IO, Any

import numpy as np

from seqbench_tasks.text.bad_records import BadRecords
from seqbench_tasks.text.cache import CACHE_VARIABLE
from seqbench_tasks.text.documents import DamagedSegment, DocumentFile, digests_of
from seqbench_tasks.text.files import UNFINISHED, read_record, write_record
from seqbench_tasks.text.open_files import NotOrdinary
from seqbench_tasks.text.records import BadRecord, DamagedText, LeftOut, Record, RecordStream
from seqbench_tasks.text.scan import TextFacts, TextScanner

# A segment ends with the document that reaches this size.
SEGMENT_BYTES = 2**25
# Bad records, and what is left out, that an index describes; it counts all of them.
_DESCRIBED = 10
_PIECE = 2**20


class Segment(DocumentFile):
    """Some consecutive documents of a store.

    Attributes:
        state: of the source behind them.
        last: whether the source has ended.
        bad_count, first_bad: records that are no documents, and the first of them in words.
        left_out_count, first_left_out: what is no document on purpose.
    """

    def __init__(self, index_path: Path, prefix: str) -> None:
        index = _read_index(index_path)
        sizes, digests = np.array(index["sizes"], dtype=np.int64), digests_of(index["sha256"])
        super().__init__(index_path.with_suffix(".bin"), sizes, digests, dict(index["invalid"]))
        self.state, self.last = index["state"], index["last"]
        self.bad_count: int = index["bad_count"]
        self.first_bad: list[tuple[str, str]] = [tuple(pair) for pair in index["first_bad"]]
        # Indexes of data sets of the hub may be older than these fields, and nothing is left out there.
        self.left_out_count: int = index.get("left_out_count", 0)
        self.first_left_out: list[tuple[str, str]] = [tuple(pair) for pair in index.get("first_left_out", [])]
        self._index_path, self._prefix, self._verified = index_path, prefix, False
        if not self.path.exists() or self.path.stat().st_size != sizes.sum():
            raise _set_aside(index_path)

    def name(self, number: int) -> str:
        """What the source calls a document. Read again from the index, so that millions of names take no memory."""
        return self._prefix + _read_index(self._index_path)["names"][number]

    def require_unchanged(self) -> None:
        """Raise DamagedSegment, the first time, when a document has not the hash that it was written with."""
        if self._verified:
            return
        expected = _read_index(self._index_path)["sha256"]
        with self.path.open("rb", buffering=0) as file:
            for size, digest in zip(self.sizes.tolist(), expected, strict=True):
                if _sha256_of_next(file, size) != digest:
                    raise _set_aside(self._index_path)
        self._verified = True


class SegmentWriter:
    """Writes one segment beside its place and puts it there when it is whole.

    Args:
        index_path: where the index is to be.
        prefix: what document names begin with, for messages.
        bad: asked whether a bad record is fatal.
    """

    def __init__(self, index_path: Path, prefix: str, bad: BadRecords) -> None:
        self._index_path, self._prefix, self._bad = index_path, prefix, bad
        self._names: list[str] = []
        self._facts: list[TextFacts] = []
        self._bad_count = 0
        self._first_bad: list[tuple[str, str]] = []
        self._left_out_count = 0
        self._first_left_out: list[tuple[str, str]] = []

    def write(self, stream: RecordStream) -> None:
        """Take records from `stream` until the segment is full or the stream has ended.

        Raises RequestError when a record is bad and that is fatal, and OSError when the folder cannot be written.
        """
        content = self._index_path.with_suffix(".bin")
        unfinished = content.with_name(content.name + UNFINISHED)
        with unfinished.open("wb") as file:
            last = self._take(stream, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(content)
        index = {
            "names": self._names,
            "sizes": [facts.size for facts in self._facts],
            "sha256": [facts.sha256 for facts in self._facts],
            "invalid": [
                (number, facts.invalid_at) for number, facts in enumerate(self._facts) if facts.invalid_at is not None
            ],
            "bad_count": self._bad_count,
            "first_bad": self._first_bad,
            "left_out_count": self._left_out_count,
            "first_left_out": self._first_left_out,
            "state": stream.state(),
            "last": last,
        }
        write_record(self._index_path, index)

    def _take(self, stream: RecordStream, file: IO[bytes]) -> bool:
        """Write documents behind each other; returns whether the stream has ended."""
        while file.tell() < SEGMENT_BYTES:
            record = stream.next_record()
            if record is None:
                return True
            if isinstance(record, BadRecord):
                self._refuse(record.name, record.fault)
            elif isinstance(record, LeftOut):
                self._leave_out(record)
            else:
                self._add(record, file)
        return False

    def _add(self, record: Record, file: IO[bytes]) -> None:
        start, scanner = file.tell(), TextScanner()
        try:
            for piece in record.pieces:
                scanner.add(piece)
                file.write(piece)
            facts = scanner.facts()
            fault = facts.fault()
        except DamagedText as error:
            fault = str(error)
        if fault is None:
            self._names.append(record.name)
            self._facts.append(facts)
        else:
            file.seek(start)
            file.truncate()
            self._refuse(record.name, fault)

    def _refuse(self, name: str, fault: str) -> None:
        self._bad.require_skipping(f"{self._prefix}{name}", fault)
        self._bad_count += 1
        if len(self._first_bad) < _DESCRIBED:
            self._first_bad.append((name, fault))

    def _leave_out(self, record: LeftOut) -> None:
        self._left_out_count += 1
        if len(self._first_left_out) < _DESCRIBED:
            self._first_left_out.append((record.name, record.why))


@functools.lru_cache(maxsize=4)
def _read_index(path: Path) -> dict[str, Any]:
    """Raises DamagedSegment when the index is not what was written."""
    try:
        return read_record(path)
    except (ValueError, NotOrdinary):
        raise _set_aside(path) from None


def _sha256_of_next(file: IO[bytes], size: int) -> str:
    digest = hashlib.sha256()
    while size and (piece := file.read(min(size, _PIECE))):
        digest.update(piece)
        size -= len(piece)
    return digest.hexdigest()


def _set_aside(index_path: Path) -> DamagedSegment:
    """Move a damaged segment out of the way, so that it is made again; returns what to raise."""
    _read_index.cache_clear()
    number = next(number for number in count(1) if not _aside(index_path, number).exists())
    for path in (index_path, index_path.with_suffix(".bin")):
        try:
            path.replace(_aside(path, number))
        except FileNotFoundError:
            # Another process may have noticed at the same moment.
            continue
        except OSError as error:
            # The cache may be read-only.
            return DamagedSegment(
                f"{index_path.with_suffix('.*')} is damaged, and cannot be set aside ({error.strerror}); remove it, or "
                f"name another folder in the variable {CACHE_VARIABLE}"
            )
    return DamagedSegment(
        f"{index_path.with_suffix('.*')} is damaged, and was set aside as {_aside(index_path, number).name}; type the "
        "command again, and it is made anew",
    )


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.corrupt-{number}")
