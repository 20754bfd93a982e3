"""Opening files of the user's: ordinary ones only, since others block, never end, or change by being read."""

import io
import os
import stat
from pathlib import Path

from seqbench.errors import RequestError
from seqbench_tasks.text.names import printable

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotOrdinary(OSError):
    """It is no ordinary file; the message says what it is."""


def kind_of(mode: int) -> str | None:
    """What a file of that mode is, in words; None for an ordinary file."""
    if stat.S_ISREG(mode):
        return None
    return next((kind for test, kind in _KINDS if test(mode)), "no ordinary file")


def open_file(path: Path) -> io.FileIO:
    """An ordinary file, unbuffered. Raises OSError when it cannot be opened, or is of another kind."""
    # To open a device may do something already.
    _require_ordinary(os.stat(path).st_mode)
    # It may have become a FIFO since, at which an opening waits for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_ordinary(os.fstat(descriptor).st_mode)
        return io.FileIO(descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def stamp_of(path: Path) -> tuple[int, int]:
    """What changes with a file: its size and the time of its last change in ns."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def require_same(path: Path, stamp: tuple[int, int], size: int) -> None:
    """Raise RequestError when a file that was read to the end, `size` bytes, is not what it was before."""
    if size != stamp[0] or stamp_of(path) != stamp:
        raise RequestError(f"{printable(str(path))} was changed while it was being read; type the command again")


def unreadable(error: OSError) -> str:
    """Why a file cannot be read, in words."""
    return str(error) if isinstance(error, NotOrdinary) else f"it cannot be read: {error.strerror or error}"


def _require_ordinary(mode: int) -> None:
    kind = kind_of(mode)
    if kind is not None:
        raise NotOrdinary(f"it is {kind}, and no ordinary file")
