"""`toy_model:Neighbour` in a process whose dealings with the disk can be followed, stopped and refused.

Named as `toy_kills:Neighbour`. The environment variable TOY_STORE is the folder in which the system calls that change
files count as instants, from 1. Others say what happens:

    TOY_TRACE=<file>       a line is appended for each instant: the call and the path
    TOY_KILL=<n>           kill -9 right before the n-th
    TOY_KILL=<n>:torn      the same, as if the power failed: of what the file had gained since it was flushed to the
                           disk, half is there
    TOY_FULL=<n>           from the n-th on the disk is full: nothing can be written, flushed or created any more
    TOY_PLOTS=1            plots are drawn; without it they are empty files: drawing takes longer than the whole run
"""

import errno
import os
import signal
from pathlib import Path

from matplotlib.figure import Figure
from toy_model import Neighbour

__all__ = ["Neighbour"]

_CREATING = ("mkdir", "write", "fsync")
_CALLS = (*_CREATING, "rename", "replace", "unlink", "rmdir", "ftruncate")


def _path_of(target, options):
    """Where the first argument of a call points to: a path, a descriptor, or a name in an open folder."""
    if isinstance(target, int):
        return os.readlink(f"/proc/self/fd/{target}")
    folder = options.get("dir_fd")
    base = Path.cwd() if folder is None else Path(os.readlink(f"/proc/self/fd/{folder}"))
    return str(base / os.fspath(target))


class Instants:
    def __init__(self, store, environment):
        self._store, self._number = store, 0
        self._trace = environment.get("TOY_TRACE")
        number, _, self._how = environment.get("TOY_KILL", "0").partition(":")
        self._last, self._full = int(number), int(environment.get("TOY_FULL", 0))
        self._flushed = {}

    def watch(self, name):
        call = getattr(os, name)

        def watched(target, *arguments, **options):
            path = _path_of(target, options)
            if not path.startswith(self._store):
                return call(target, *arguments, **options)
            if name == "write":
                self._flushed.setdefault(path, os.path.getsize(path))
            self._pass(name, path, arguments[0] if name == "write" else b"")
            result = call(target, *arguments, **options)
            if name == "fsync":
                self._flushed[path] = os.path.getsize(path)
            return result

        setattr(os, name, watched)

    def _pass(self, name, path, gained):
        self._number += 1
        if self._trace:
            with open(self._trace, "a") as trace:
                trace.write(f"{name} {os.path.relpath(path, self._store)}\n")
        if self._number == self._last:
            if self._how == "torn" and os.path.isfile(path):
                self._tear(path, gained)
            os.kill(os.getpid(), signal.SIGKILL)
        if 0 < self._full <= self._number and name in _CREATING:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def _tear(self, path, gained):
        with open(path, "ab") as file:
            file.write(gained)
        flushed = self._flushed.get(path, 0)
        os.truncate(path, flushed + (os.path.getsize(path) - flushed) // 2)


if "TOY_STORE" in os.environ:
    instants = Instants(os.environ["TOY_STORE"], os.environ)
    for call in _CALLS:
        instants.watch(call)
    if "TOY_PLOTS" not in os.environ:
        Figure.savefig = lambda figure, path, **options: Path(path).write_bytes(b"")
