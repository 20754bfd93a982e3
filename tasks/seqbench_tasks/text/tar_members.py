"""Members of a tar archive, in order, to its last block."""

import io
import tarfile
from collections.abc import Iterator
from typing import IO, Self

from seqbench_tasks.text.damage import LEAST_BYTES, Damage
from seqbench_tasks.text.members import Member
from seqbench_tasks.text.records import BadRecord, LeftOut

_BLOCK = tarfile.BLOCKSIZE
# What holds a name or a comment; longer ones are nobody's, and would be read into memory.
_LONGEST_EXTENSION = 2**20
_EXTENSIONS = {
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
}
# Reads at the end of a file that are needed to notice it.
_MOST_IN_VAIN = 8
# Two blocks of zeros end an archive, and fill it up to a record of 20 blocks in most programs, of another size in some
# (POSIX.1-2017 pax; GNU tar 9.4).
_ENDING_BLOCKS = 2
_USUAL_RECORD = tarfile.RECORDSIZE // _BLOCK
_RECORDS = (_USUAL_RECORD, *(2**power for power in range(12)))


class _Tape(io.RawIOBase):
    """The bytes of an archive. The library passes over a member by reading, as often as its size says."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__()
        self._stream, self._place, self._in_vain = stream, 0, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Raises Damage when the library goes on behind the end."""
        content = self._stream.read(size)
        self._place += len(content)
        self._in_vain = 0 if content else self._in_vain + 1
        if self._in_vain > _MOST_IN_VAIN:
            raise Damage(f"it ends at byte {self._place:,}, inside a member")
        return content


class _Header(tarfile.TarInfo):
    """A member's header. What is none is damage, where the library takes it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in _EXTENSIONS and header.size > _LONGEST_EXTENSION):
            raise Damage(f"a header of {header.size:,} bytes stands where one of a member should")
        return header

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        assert isinstance(archive, _Archive) and archive.fileobj is not None
        place = archive.fileobj.tell()
        try:
            header = super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            archive.zeros += 1
            raise
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            if archive.zeros:
                archive.note_end(place)
                raise
            raise Damage(f"it ends at byte {place:,} without the zeros that end an archive") from error
        except tarfile.HeaderError as error:
            raise Damage(f"from byte {place:,} on, where a member should begin: {error}") from error
        archive.note_zeros(place)
        return header


class _Archive(tarfile.TarFile):
    """One archive or several, one behind the other.

    Attributes:
        zeros: blocks of zeros just before the place of reading.
        holes: zeros that are no end of an archive, and stand where members may have been: place -> blocks.
    """

    tarinfo = _Header
    zeros = 0
    _begin = 0

    def __init__(self, *arguments: object, **options: object) -> None:
        self.holes: dict[int, int] = {}
        super().__init__(*arguments, **options)  # type: ignore[arg-type]

    def note_zeros(self, place: int) -> None:
        """A member begins at `place`."""
        if self._is_ending(place):
            self._begin = place
        elif self.zeros:
            self.holes[place - self.zeros * _BLOCK] = self.zeros
        self.zeros = 0

    def note_end(self, place: int) -> None:
        """The file ends at `place`; it may be cut inside its zeros."""
        if self.zeros > _USUAL_RECORD + 1 and not self._is_ending(place):
            self.holes[place - self.zeros * _BLOCK] = self.zeros

    def _is_ending(self, place: int) -> bool:
        """Whether the zeros before `place` are what programs end an archive with."""
        blocks = (place - self._begin) // _BLOCK
        if blocks == self.zeros:
            # An archive of nothing, as GNU tar makes it.
            return blocks == _USUAL_RECORD
        filled = any(blocks % record == 0 and self.zeros <= record + 1 for record in _RECORDS)
        return self.zeros == _ENDING_BLOCKS or (self.zeros > _ENDING_BLOCKS and filled)


def tar_members(stream: IO[bytes]) -> Iterator[Member | BadRecord | LeftOut]:
    """The files in an archive or several that stand behind each other, each to be read before the next.

    Raises one of `DAMAGE` where no more can be read.
    """
    with _Archive.open(fileobj=_Tape(stream), mode="r|", ignore_zeros=True) as archive:
        assert isinstance(archive, _Archive)
        while (member := archive.next()) is not None:
            # Otherwise the library keeps all of them.
            archive.members.clear()  # type: ignore[attr-defined]
            yield from _holes(archive)
            yield from _member(archive, member)
        yield from _holes(archive)


def _holes(archive: _Archive) -> Iterator[BadRecord]:
    for place, blocks in archive.holes.items():
        yield BadRecord(f", byte {place}", f"{blocks * _BLOCK:,} zeros stand there, and may have been members")
    archive.holes.clear()


def _member(archive: _Archive, member: tarfile.TarInfo) -> Iterator[Member | BadRecord | LeftOut]:
    if member.isfile():
        content = archive.extractfile(member)
        assert content is not None
        holes = _hole_bytes(member)
        if holes > LEAST_BYTES:
            yield BadRecord(f"/{member.name}", f"it is a sparse file with {holes:,} bytes of holes, and no text")
            return
        yield Member(member.name, content)
    elif member.issym() or member.islnk():
        yield LeftOut(f"/{member.name}", f"a link to {member.linkname}")
    elif member.ischr() or member.isblk() or member.isfifo():
        yield LeftOut(f"/{member.name}", "a device or a FIFO")
    elif not member.isdir():
        yield BadRecord(f"/{member.name}", f"it is of an unknown kind, {member.type!r}")


def _hole_bytes(member: tarfile.TarInfo) -> int:
    """Bytes of a sparse file that stand nowhere in the archive."""
    parts: list[tuple[int, int]] = member.sparse or []  # type: ignore[assignment]
    starts = [start for start, _ in parts] + ([member.size] if parts else [])
    ends = [0, *(start + size for start, size in parts)]
    return sum(max(0, start - end) for start, end in zip(starts, ends, strict=False))
