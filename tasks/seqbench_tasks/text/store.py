"""Texts that were unpacked or fetched once, in a folder that processes share: append-only, whole pieces or nothing."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock

from seqbench_tasks.text.bad_records import BadRecords
from seqbench_tasks.text.cache import make_folder, other_folder
from seqbench_tasks.text.documents import DamagedSegment
from seqbench_tasks.text.files import UNFINISHED, unwritable
from seqbench_tasks.text.records import RecordStream, Source
from seqbench_tasks.text.segments import Segment, SegmentWriter

_LOGGER = logging.getLogger(__name__)


class DocumentStore:
    """The documents of a source, kept in a folder and fetched no further than they are asked for.

    A process that is killed leaves whole segments behind, and the next one goes on from there. Segments are named by
    their number; one is complete when its index is there, which is written last.

    Args:
        folder: of the store; its name says what the source is.
        source: where documents come from.
        prefix: what document names begin with.
        bad: told of every bad record.
    """

    def __init__(self, folder: Path, source: Source, prefix: str, bad: BadRecords) -> None:
        self._folder, self._source, self._prefix, self._bad = folder, source, prefix, bad
        self._segments: list[Segment] = []
        # An open stream, and the number of the segment that it goes on with.
        self._stream: tuple[int, RecordStream] | None = None

    def segment(self, number: int) -> Segment | None:
        """The number-th segment, fetched when it is not there; None behind the last.

        Raises RequestError when the folder cannot be written, or a record is bad and that is fatal.
        """
        self._read_present(number)
        while len(self._segments) <= number and not self.ended:
            with self._locked():
                # Another process may have fetched it while this one waited.
                self._read_present(number)
                if len(self._segments) <= number and not self.ended:
                    self._fetch()
            self._read_present(number)
        return self._segments[number] if number < len(self._segments) else None

    def all_segments(self) -> list[Segment]:
        """Every segment, after fetching all of the source."""
        while self.segment(len(self._segments)) is not None:
            pass
        return list(self._segments)

    @property
    def ended(self) -> bool:
        """Whether everything that the source has is here."""
        return bool(self._segments) and self._segments[-1].last

    def _read_present(self, wanted: int) -> None:
        """Take in segments up to `wanted` that are in the folder."""
        while len(self._segments) <= wanted and not self.ended:
            path = self._index_path(len(self._segments))
            if not path.exists():
                return
            try:
                segment = Segment(path, self._prefix)
            except DamagedSegment as error:
                _LOGGER.warning("%s", error)
                return
            first_bad = [(f"{self._prefix}{name}", fault) for name, fault in segment.first_bad]
            self._bad.add_counted(segment.bad_count, first_bad)
            left_out = [(f"{self._prefix}{name}", why) for name, why in segment.first_left_out]
            self._bad.leave_out(segment.left_out_count, left_out)
            self._segments.append(segment)

    def _index_path(self, number: int) -> Path:
        return self._folder / f"{number:06}.json"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone with the folder, which is one among the temporary files from now on where this one is read-only."""
        try:
            lock = self._acquired()
        except OSError as error:
            other = other_folder(self._folder, error)
            if other is None:
                raise unwritable(self._folder, error) from error
            _LOGGER.warning("unpacked text cannot be kept in %s (%s); it is kept in %s", self._folder, error, other)
            self._folder = other
            try:
                lock = self._acquired()
            except OSError as second:
                raise unwritable(other, second) from second
        try:
            yield
        finally:
            lock.release()

    def _acquired(self) -> BaseFileLock:
        make_folder(self._folder)
        lock = FileLock(self._folder / ".lock")
        lock.acquire()
        return lock

    def _fetch(self) -> None:
        """Write the next segment; the caller has the lock."""
        number = len(self._segments)
        if self._stream is not None and self._stream[0] != number:
            self._stream[1].close()
            self._stream = None
        if self._stream is None:
            state = self._segments[-1].state if self._segments else None
            self._stream = number, self._source.open(state)
        stream = self._stream[1]
        self._stream = None
        try:
            for leftover in self._folder.glob(f"*{UNFINISHED}"):
                leftover.unlink()
            SegmentWriter(self._index_path(number), self._prefix, self._bad).write(stream)
        except OSError as error:
            stream.close()
            raise unwritable(self._folder, error) from error
        except BaseException:
            stream.close()
            raise
        self._stream = number + 1, stream
