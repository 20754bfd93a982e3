"""The one way in which stored files are read: files only, of bounded size, JSON of a declared form.

A disk can hold anything under a name: a folder, a pipe that never ends, a link that leads nowhere, brackets nested
100,000 deep, half a character. All of it is a `DamagedFile` that names the file and says what is wrong.
"""

import errno
import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from seqbench.errors import RequestError
from seqbench.store.damage import DamagedFile
from seqbench.store.schema import Check

# Far more than the largest result; a line of a log or of items is far below it too.
LARGEST_JSON = 2**28
# What is written here nests less than 15 deep. Everything behind the reader may walk through it by recursion.
DEEPEST_JSON = 64

_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))


@contextmanager
def open_file(path: Path) -> Iterator[BufferedReader]:
    """Open a file for reading; links to files count as files.

    Raises FileNotFoundError when there is nothing under that name, DamagedFile when it is no file or the disk cannot
    read it, and RequestError when it may not be read. Never waits for anybody.
    """
    try:
        _require_file(path, os.stat(path))
        # Between two looks a pipe may have taken the place of the file.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            _require_file(path, os.fstat(descriptor))
            yield file
    except OSError as error:
        raise _explained(path, error) from error


def kind_of(path: Path) -> str | None:
    """What lies under a name in words, such as "a folder"; "a file" for a file or a link to one, None for nothing."""
    try:
        with open_file(path):
            return "a file"
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        return error.why.removeprefix("it is ")


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content; raises as `open_file` does."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_bytes(path: Path, largest: int = LARGEST_JSON) -> bytes:
    """The content of a file; raises as `open_file` does, and DamagedFile when it is larger than anything written."""
    with open_file(path) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise DamagedFile(path, f"it is larger than {largest:,} bytes")
    return content


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file with their line feeds, one after the other; the last one may lack it.

    Raises as `read_bytes` does, for the line.
    """
    with open_file(path) as file:
        while line := file.readline(LARGEST_JSON + 1):
            if len(line) > LARGEST_JSON:
                raise DamagedFile(path, f"a line is longer than {LARGEST_JSON:,} bytes")
            yield line


def read_json(path: Path, form: Check) -> Any:
    """The content of a JSON file that is of this form; None when there is no such file.

    Raises DamagedFile when it cannot be read or is something else, RequestError when it may not be read.
    """
    try:
        content = parse(read_bytes(path))
        form(content)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DamagedFile(path, str(error)) from error
    return content


def parse(text: bytes) -> Any:
    """JSON text as plain data that can be printed, stored and walked through. Raises ValueError for anything else.

    Not JSON are here also: numbers that are not finite, a name that an object has twice, and what is nested deeper than
    `DEEPEST_JSON`.
    """
    try:
        content = json.loads(
            text.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_number, parse_float=_number
        )
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    # Where there are fewer brackets than that there is nothing to walk through.
    if text.count(b"[") + text.count(b"{") > DEEPEST_JSON:
        _require_shallow(content, DEEPEST_JSON)
    return content


def _require_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise DamagedFile(path, f"it is {_kind(status)}, not a file")


def _kind(status: os.stat_result) -> str:
    return next((word for fits, word in _KINDS if fits(status.st_mode)), "a device")


def _explained(path: Path, error: OSError) -> Exception:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        if os.path.lexists(path):
            return DamagedFile(path, "it is a link that leads nowhere")
        return FileNotFoundError(*error.args)
    if error.errno == errno.ELOOP:
        return DamagedFile(path, "it is a link that leads back to itself")
    if error.errno in (errno.EIO, errno.ENXIO):
        return DamagedFile(path, str(error))
    return RequestError(f"{path} cannot be read: {error.strerror}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("an object has a name twice")
    return content


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is beyond all numbers")
    return value


def _require_shallow(content: Any, depth: int) -> None:
    if depth == 0:
        raise ValueError("it is nested too deep")
    if isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            _require_shallow(value, depth - 1)
