"""Texts in JSON lines: one object a line, of which one field is the text."""

import json
from collections.abc import Iterator
from typing import IO, Any

from seqbench_tasks.text.records import BadRecord, Record

# Where `text_field` is empty.
DEFAULT_FIELD = "text"
# A line is held in memory whole, some six times over while it is parsed. The longest books have 16 MB.
LONGEST_LINE_BYTES = 2**27
_PIECE = 2**20


class _Fields(dict[str, Any]):
    """A JSON object that knows which names it has twice, of which only the last value is kept."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated: set[str] = set()
        if len(self) < len(pairs):
            names = [name for name, _ in pairs]
            self.repeated = {name for name in names if names.count(name) > 1}


def json_lines(stream: IO[bytes], field: str) -> Iterator[Record | BadRecord]:
    """The texts of a file of JSON lines, in order; blank lines are none."""
    number = 0
    while line := stream.readline(LONGEST_LINE_BYTES + 1):
        number += 1
        name = f", line {number}"
        if len(line) > LONGEST_LINE_BYTES:
            _skip_line(line, stream)
            yield BadRecord(
                name, f"it is longer than {LONGEST_LINE_BYTES:,} bytes, which is too long for a line of JSON"
            )
        elif line.strip():
            yield _record(name, line, field)


def _skip_line(begin: bytes, stream: IO[bytes]) -> None:
    """Read to the end of a line of which something has been read."""
    piece = begin
    while piece and not piece.endswith(b"\n"):
        piece = stream.readline(_PIECE)


def _record(name: str, line: bytes, field: str) -> Record | BadRecord:
    try:
        # JSON is UTF-8; only the first line may begin with a byte order mark.
        text = line.decode("utf-8-sig" if name == ", line 1" else "utf-8")
        value = json.loads(text, object_pairs_hook=_Fields)
        return Record(name, iter((_text_of(value, field),)))
    except RecursionError:
        return BadRecord(name, "it is nested too deeply")
    except ValueError as error:
        return BadRecord(name, _fault(error))


def _fault(error: ValueError) -> str:
    """What is wrong with a line, from whichever of the steps failed."""
    if isinstance(error, UnicodeEncodeError):
        return "its text has half of a surrogate pair, which is no character"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 from byte {error.start} of the line on"
    if isinstance(error, json.JSONDecodeError):
        return f"it is no JSON from column {error.colno} on: {error.msg}"
    return str(error)


def _text_of(value: Any, field: str) -> bytes:
    """The field of a JSON object as UTF-8. Raises ValueError."""
    if not isinstance(value, _Fields):
        raise ValueError(f"it is no JSON object, but {type(value).__name__}")
    name = field or DEFAULT_FIELD
    if name not in value:
        raise ValueError(f"it has no field {name!r}, only {', '.join(value) or 'none'}; name one with task.text_field")
    if name in value.repeated:
        raise ValueError(f"it has the field {name!r} more than once")
    if not isinstance(value[name], str):
        raise ValueError(f"its field {name!r} is no text, but {type(value[name]).__name__}")
    return value[name].encode("utf-8")
