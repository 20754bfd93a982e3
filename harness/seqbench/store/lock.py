"""One process at a time in a run's folder; the system lets go of the lock when the process ends, however it ends."""

import fcntl
import os
import stat
import time
from pathlib import Path
from typing import TextIO

from seqbench.errors import Busy

LOCK = ".lock"

# Whoever only asks whether a folder is locked holds it for a moment (`is_locked`), which must refuse nobody.
_PATIENCE_SECONDS = 1.0
_POLL_SECONDS = 0.02


def acquire(folder: Path) -> TextIO:
    """Lock a folder, which is made where there is none, until the returned file is closed.

    Raises Busy when another process has it, and OSError when the folder cannot be written.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            # Not through a link, and a pipe under that name must not make this process wait for a reader.
            descriptor = os.open(
                folder / LOCK,
                os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                0o666,
            )
        except FileNotFoundError:
            # The folder was removed at this very moment.
            continue
        lock = os.fdopen(descriptor, "a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            if time.monotonic() > deadline:
                raise Busy(f"another bench process is at work on {folder}; wait for it to end") from None
            time.sleep(_POLL_SECONDS)
            continue
        except OSError:
            lock.close()
            raise
        if holds(folder, lock):
            return lock
        # Whoever had the folder before has removed it: what was locked is no longer anybody's lock.
        lock.close()


def is_locked(folder: Path) -> bool:
    """Whether a process is at work in the folder."""
    try:
        with os.fdopen(os.open(folder / LOCK, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def is_lockable(folder: Path) -> bool:
    """Whether there is nothing else under the lock's name than a lock."""
    try:
        return stat.S_ISREG(os.lstat(folder / LOCK).st_mode)
    except OSError:
        return True


def holds(folder: Path, lock: TextIO) -> bool:
    """Whether what `acquire` returned is still the lock of this folder, and not that of one which was removed."""
    try:
        return os.path.samestat((folder / LOCK).stat(), os.fstat(lock.fileno()))
    except FileNotFoundError:
        return False
