"""Members of a zip archive, in the order of its directory, and what the directory does not list."""

import io
import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from typing import IO, Any, cast

from seqbench_tasks.text.damage import DAMAGE, Damage, described, require_plausible
from seqbench_tasks.text.members import Member
from seqbench_tasks.text.records import BadRecord, LeftOut

# Bit of a member's flags (APPNOTE.TXT 4.4.4).
_ENCRYPTED = 1
# The record at the end: signature, five numbers, the directory's place, the length of the comment (APPNOTE.TXT 4.3.16).
_END = struct.Struct("<4s4H2LH")
_END_SIGNATURE = b"PK\x05\x06"
_LONGEST_COMMENT = 2**16 - 1


class _Bounded(io.RawIOBase):
    """The content of a member, which does not unpack to more than a text could."""

    def __init__(self, content: IO[bytes], packed: int) -> None:
        super().__init__()
        self._content, self._packed, self._unpacked = content, packed, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Raises one of `DAMAGE`."""
        data = self._content.read(len(buffer))
        self._unpacked += len(data)
        require_plausible(self._packed, self._unpacked)
        buffer[: len(data)] = data
        return len(data)


def zip_members(stream: IO[bytes]) -> Iterator[Member | BadRecord | LeftOut]:
    """The files of an archive in which one can jump. Each damaged one is a bad record, and so is what no member is.

    Raises one of `DAMAGE` where the archive has no readable directory.
    """
    with zipfile.ZipFile(stream) as archive:
        yield from _surroundings(stream, archive)
        for member in archive.infolist():
            name = f"/{member.filename}"
            if member.flag_bits & _ENCRYPTED:
                yield BadRecord(name, "it is encrypted")
            elif stat.S_ISLNK(member.external_attr >> 16):
                # Its content is the path that it leads to.
                yield LeftOut(name, "a link")
            elif member.is_dir() and not member.file_size:
                continue
            elif member.is_dir():
                yield BadRecord(name, "it is a folder by its name, and has content")
            else:
                try:
                    # Compares the member's own header.
                    content = archive.open(member)
                except DAMAGE as error:
                    yield BadRecord(name, described(error))
                    continue
                with content:
                    bounded = io.BufferedReader(_Bounded(content, member.compress_size))
                    yield Member(member.filename, cast(IO[bytes], bounded))


def _surroundings(stream: IO[bytes], archive: zipfile.ZipFile) -> Iterator[BadRecord]:
    """What stands before the first member and behind the archive, and members that its directory lacks."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _END.size - _LONGEST_COMMENT))
    tail = stream.read()
    place = tail.rfind(_END_SIGNATURE)
    if place < 0 or len(tail) - place < _END.size:
        raise Damage("its last record is cut off")
    _, _, _, _, count, _, _, comment = _END.unpack_from(tail, place)
    behind = len(tail) - place - _END.size - comment
    if behind:
        yield BadRecord(
            f", byte {size - behind}", f"{abs(behind):,} bytes too {'many' if behind > 0 else 'few'} stand there"
        )
    members = archive.infolist()
    if count != len(members) % 2**16 and count != 2**16 - 1:
        yield BadRecord("", f"it says that it has {count:,} members, and lists {len(members):,}")
    first = min((member.header_offset for member in members), default=archive.start_dir)
    if first:
        yield BadRecord("", f"its first {first:,} bytes belong to no member that it lists")
