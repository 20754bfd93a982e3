"""What was found out about large corpora before, so that not every process reads them from end to end."""

import contextlib
import dataclasses
import hashlib
import time
from pathlib import Path

from seqbench.errors import RequestError
from seqbench_tasks.text.cache import cache_folder
from seqbench_tasks.text.files import read_record, write_record
from seqbench_tasks.text.scan import TextFacts, scan_file

# Raise it whenever the facts of the same file would be others.
_VERSION = 2
# Less than this is read in a tenth of a second, and not worth a file in the cache.
_WORTH_BYTES = 2**26
# A file may be changed twice within one tick of the file system's clock: what is so young is looked at again.
_SETTLED_SECONDS = 2.0


class ScanMemory:
    """The facts of files below one place, kept from process to process.

    A file counts as the one that it was when its size, both times of change and its inode are the same.

    Args:
        root: file or folder that the files belong to.
    """

    def __init__(self, root: Path) -> None:
        key = f"{_VERSION}\n".encode() + bytes(root.absolute())
        self._path: Path | None = None
        self._known: dict[str, dict[str, object]] = {}
        self._kept: dict[str, dict[str, object]] = {}
        self._bytes_read = 0
        # Otherwise nothing is known, and everything is looked at: who has no place for a cache needs none for this.
        with contextlib.suppress(RequestError, OSError, ValueError):
            self._path = cache_folder() / f"scan-{hashlib.sha256(key).hexdigest()[:32]}.json"
            self._known = read_record(self._path)

    def facts(self, path: Path) -> TextFacts:
        """The facts of a file's bytes. Raises OSError when it cannot be read, RequestError when it changes."""
        state = _state_of(path)
        known = self._known.get(str(path.absolute()))
        if known is not None and known["state"] == state:
            facts = TextFacts(**known["facts"])  # type: ignore[arg-type]
        else:
            facts = scan_file(path)
            self._bytes_read += facts.size
        if time.time() - max(state[1:3]) / 1e9 > _SETTLED_SECONDS and _state_of(path) == state:
            self._kept[str(path.absolute())] = {"state": state, "facts": dataclasses.asdict(facts)}
        return facts

    def keep(self) -> None:
        """Write down what is known now, when finding it out took a while and there is a place for it."""
        if self._path is not None and self._bytes_read >= _WORTH_BYTES:
            # Otherwise the next process finds it out again.
            with contextlib.suppress(OSError):
                write_record(self._path, self._kept)


def _state_of(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
