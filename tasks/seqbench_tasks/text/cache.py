"""Where text is kept once it has been unpacked or fetched."""

import contextlib
import errno
import os
import stat
import sys
import tempfile
from pathlib import Path

from seqbench.errors import RequestError

# Names a folder for everything that may be fetched or made again.
CACHE_VARIABLE = "SEQBENCH_CACHE"
# A folder is no place for a cache, as a home folder that is read-only or not there; a full disk is another matter.
_NO_PLACE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


def cache_folder() -> Path:
    """The folder for unpacked and fetched text: $SEQBENCH_CACHE, or seqbench in the user's folder of caches.

    Who has no home folder has one among the temporary files. Nothing is made here: much needs no cache.
    """
    named = os.environ.get(CACHE_VARIABLE)
    try:
        if named:
            return Path(named).expanduser() / "text"
        if sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        if named:
            raise RequestError(f"{CACHE_VARIABLE} is {named}: {error}") from error
        return _temporary()
    return base / "seqbench" / "text"


def other_folder(folder: Path, error: OSError) -> Path | None:
    """A folder in place of one that cannot be written; None when the user has to name one, or make room."""
    if os.environ.get(CACHE_VARIABLE) or error.errno not in _NO_PLACE:
        return None
    other = _temporary() / folder.name
    return None if other == folder else other


def make_folder(folder: Path) -> None:
    """Make a folder of the cache. Raises OSError."""
    # Whatever fails with the first fails with the second again.
    with contextlib.suppress(OSError):
        own = _own_temporary()
        if folder.is_relative_to(own):
            own.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def _temporary() -> Path:
    """The cache among the temporary files. Raises RequestError when it is somebody else's, or has no place."""
    try:
        folder = _own_temporary()
    except OSError as error:
        raise RequestError(f"there is no place for a cache ({error}); name a folder in {CACHE_VARIABLE}") from error
    try:
        status = folder.lstat()
    except OSError:
        return folder / "text"
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise RequestError(
            f"{folder} can be written by others; name a folder of your own in the variable {CACHE_VARIABLE}"
        )
    return folder / "text"


def _own_temporary() -> Path:
    """The folder of this user's among the temporary files. Raises OSError when no place for such files is known."""
    return Path(tempfile.gettempdir()) / f"seqbench-{os.getuid()}"
