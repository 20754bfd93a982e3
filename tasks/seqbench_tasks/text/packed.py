"""Files of this machine as the source of a store: those that hold texts in another form, and chains of files."""

import dataclasses
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from seqbench.errors import RequestError
from seqbench_tasks.text.damage import DAMAGE, described
from seqbench_tasks.text.formats import form_of, may_have_fields, read_records
from seqbench_tasks.text.json_lines import DEFAULT_FIELD
from seqbench_tasks.text.names import printable
from seqbench_tasks.text.open_files import open_file, stamp_of, unreadable
from seqbench_tasks.text.records import BadRecord, DamagedText, Found, Record

# Raise it whenever the same file would be unpacked to other documents, or kept in another way.
_VERSION = 2


class PackedFile:
    """The records of one file.

    Args:
        path: of the file; the end of its name says how it is read.
        sha256: of its content.
        stamp: `stamp_of` the file before its content was hashed.
        field: of JSON lines and tables; empty for the usual one.
    """

    def __init__(self, path: Path, sha256: str, stamp: tuple[int, int], field: str) -> None:
        self._path, self._sha256, self._stamp, self._field = path, sha256, stamp, field

    @property
    def key(self) -> str:
        """The name of the store: the same for the same content that is read in the same way, wherever it lies."""
        form = form_of(self._path.name)
        parts = [str(_VERSION), self._sha256, form]
        if may_have_fields(form):
            parts.append(self._field or DEFAULT_FIELD)
        return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def open(self, state: Any) -> "PackedRecords":
        """The records behind the first `state` ones."""
        try:
            file = io.BufferedReader(open_file(self._path))
        except OSError as error:
            raise RequestError(f"{printable(str(self._path))}: {unreadable(error)}") from error
        records = PackedRecords(self._path, file, self._stamp, self._field)
        for _ in range(state or 0):
            records.skip_record()
        return records


class PackedFiles:
    """The records of several files, one file behind the other.

    Args:
        files: what to call each, and the file.
    """

    def __init__(self, files: Sequence[tuple[str, PackedFile]]) -> None:
        self._files = files

    @property
    def key(self) -> str:
        """The name of the store: the same for the same contents in the same order, whatever the files are called."""
        return hashlib.sha256("\n".join(file.key for _, file in self._files).encode()).hexdigest()[:32]

    def open(self, state: Any) -> "ChainedRecords":
        """The records behind a place: number of a file, and what that file's own records have for a state."""
        return ChainedRecords(self._files, *(state or (0, None)))


class ChainedRecords:
    """The records of several files from a place on."""

    def __init__(self, files: Sequence[tuple[str, PackedFile]], number: int, state: Any) -> None:
        self._files, self._number = files, number
        self._records = files[number][1].open(state)

    def next_record(self) -> Found | None:
        """The next record; None behind the last of the last file."""
        while (record := self._records.next_record()) is None:
            if self._number + 1 == len(self._files):
                return None
            self._records.close()
            self._number += 1
            self._records = self._files[self._number][1].open(None)
        return dataclasses.replace(record, name=self._files[self._number][0] + record.name)

    def state(self) -> tuple[int, Any]:
        """Number of the file, and the state of its records."""
        return self._number, self._records.state()

    def close(self) -> None:
        """Close the file that is open."""
        self._records.close()


class PackedRecords:
    """A file's records in order; damage is a bad record, and ends them where nothing can be read behind it."""

    def __init__(self, path: Path, file: IO[bytes], stamp: tuple[int, int], field: str) -> None:
        self._path, self._file, self._stamp, self._field = path, file, stamp, field
        self._records: Iterator[Found] | None = None
        self._count, self._damaged = 0, False

    def next_record(self) -> Found | None:
        """The next record; None behind the last."""
        try:
            if self._records is None:
                self._records = read_records(self._path.name, self._file, self._field)
            record = next(self._records, None)
        except DAMAGE as error:
            self._records = iter(())
            # What is damaged inside one record has been told already.
            record = None if self._damaged else BadRecord("", described(error))
            self._damaged = True
        if record is None:
            return None
        self._count += 1
        return Record(record.name, self._guarded(record.pieces)) if isinstance(record, Record) else record

    def skip_record(self) -> None:
        """Pass over the next record."""
        record = self.next_record()
        if isinstance(record, Record):
            try:
                for _ in record.pieces:
                    pass
            except DamagedText:
                pass

    def state(self) -> int:
        """Number of records so far. Raises RequestError when the file is not what it was when it was hashed."""
        try:
            changed = stamp_of(self._path) != self._stamp
        except OSError:
            changed = True
        if changed:
            raise RequestError(f"{printable(str(self._path))} was changed while it was in use; type the command again")
        return self._count

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _guarded(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        read = 0
        try:
            for piece in pieces:
                read += len(piece)
                yield piece
        except DAMAGE as error:
            self._damaged = True
            raise DamagedText(f"after {read:,} bytes of its text, {described(error)}") from error
