"""Files that hold texts: compressed files, archives, JSON lines and tables, one inside the other."""

import io
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO

from seqbench_tasks.text.compressed import COMPRESSED, unpacked
from seqbench_tasks.text.damage import DAMAGE, Damage, described
from seqbench_tasks.text.json_lines import json_lines
from seqbench_tasks.text.members import Member
from seqbench_tasks.text.names import is_hidden, printable
from seqbench_tasks.text.parquet_rows import parquet_rows
from seqbench_tasks.text.records import BadRecord, Found, LeftOut, Record
from seqbench_tasks.text.tar_members import tar_members
from seqbench_tasks.text.zip_members import zip_members

_PIECE = 2**20
_LONG_SUFFIXES = {".tgz": ".tar.gz", ".tbz2": ".tar.bz2", ".txz": ".tar.xz", ".tzst": ".tar.zst"}
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_PACKED = (*COMPRESSED, *_LONG_SUFFIXES, *_JSON_LINES, ".tar", ".zip", ".parquet")
# Files inside files; an archive can hold itself, without end.
_DEEPEST = 8
# A table or zip archive inside another file is read into memory.
LARGEST_INNER_BYTES = 2**30


def is_packed(name: str) -> bool:
    """Whether a file of that name holds its texts in another form than as they are."""
    return name.lower().endswith(_PACKED)


def form_of(name: str) -> str:
    """The end of a file's name that decides how it is read; empty for plain text."""
    ending = ""
    while is_packed(name):
        suffix = PurePosixPath(name).suffix
        ending, name = suffix.lower() + ending, name[: -len(suffix)]
    return ending


def is_archive(name: str) -> bool:
    """Whether a file of that name holds files that have names of their own."""
    return any(part in form_of(name) for part in (".tar", ".zip", *_LONG_SUFFIXES))


def may_have_fields(form: str) -> bool:
    """Whether a file of that form can hold JSON objects or tables."""
    for suffix in COMPRESSED:
        form = form.replace(suffix, "")
    return form != ""


def read_records(name: str, stream: IO[bytes], field: str, depth: int = 0) -> Iterator[Found]:
    """What a file holds, in order; a file that holds nothing at all is a bad record.

    Args:
        name: of the file; its end says what is in it.
        stream: its bytes.
        field: of JSON objects and tables.
        depth: how many files it is in.

    Raises one of `DAMAGE` where the bytes are not what the name promises.
    """
    nothing = True
    for record in _records(name, stream, field, depth):
        nothing = False
        yield record
    if nothing:
        yield BadRecord("", "it holds no text")


def _records(name: str, stream: IO[bytes], field: str, depth: int) -> Iterator[Found]:
    if depth > _DEEPEST:
        raise Damage(f"it lies in more than {_DEEPEST} files that lie in each other")
    lower = name.lower()
    for short, long in _LONG_SUFFIXES.items():
        lower = lower.removesuffix(short) + long if lower.endswith(short) else lower
    if lower.endswith(COMPRESSED):
        stem, _, suffix = lower.rpartition(".")
        return _records(stem, unpacked(f".{suffix}", stream), field, depth + 1)
    if lower.endswith(".tar"):
        return _inside(tar_members(stream), field, depth)
    if lower.endswith(".zip"):
        return _inside(zip_members(_seekable(stream)), field, depth)
    if lower.endswith(_JSON_LINES):
        return json_lines(stream, field)
    if lower.endswith(".parquet"):
        return parquet_rows(_seekable(stream), field)
    return iter((Record("", _pieces(stream)),))


def _inside(members: Iterator[Member | BadRecord | LeftOut], field: str, depth: int) -> Iterator[Found]:
    """The texts of the files in an archive."""
    for member in members:
        if not isinstance(member, Member):
            yield _renamed(member, printable(member.name))
            continue
        path = PurePosixPath(member.path)
        name = f"/{printable(path.as_posix())}"
        if is_hidden(path):
            yield LeftOut(name, "hidden")
            continue
        try:
            for record in read_records(path.name, member.content, field, depth + 1):
                yield _renamed(record, f"{name}{record.name}")
        except DAMAGE as error:
            yield BadRecord(name, described(error))


def _renamed(record: Found, name: str) -> Found:
    if isinstance(record, Record):
        return Record(name, record.pieces)
    return BadRecord(name, record.fault) if isinstance(record, BadRecord) else LeftOut(name, record.why)


def _seekable(stream: IO[bytes]) -> IO[bytes]:
    """The bytes of a stream as a file in which one can jump; those of a file inside another are read into memory."""
    if isinstance(stream, io.BufferedReader) and isinstance(stream.raw, io.FileIO):
        return stream
    content = stream.read(LARGEST_INNER_BYTES + 1)
    if len(content) > LARGEST_INNER_BYTES:
        raise Damage(
            f"it has more than {LARGEST_INNER_BYTES:,} bytes, which are too many to be read inside another file"
        )
    return io.BytesIO(content)


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    while piece := stream.read(_PIECE):
        yield piece
