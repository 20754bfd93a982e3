"""Starting `bench` commands in processes of their own: forked from one that has imported torch, or fresh ones.

Importing takes seconds and half a GiB. A server, started once for a command, imports torch, transformers and the core,
no plugin, and forks for each run. What is read at import time must be the run's own: where the environment differs
from the server's, or the source has been edited since, the run gets a fresh process. Both give the same bits.
"""

import io
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import reduction
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import IO, Any, Protocol

import psutil

import seqbench
from seqbench.surroundings.stopping import PART_OF_ANOTHER

# Imported by the server, in this order; none of them starts a thread or touches a device.
_PRELOADED = ["torch", "transformers", "seqbench.cli.preloaded"]
# Read when a device is first used, which the server does not do.
_READ_LATER = frozenset({"CUDA_VISIBLE_DEVICES"})


# The exit code of a process of which nobody knows how it ended.
UNKNOWN = 256


class Started(Protocol):
    """What `subprocess.Popen` and a forked process have in common."""

    stdout: IO[bytes] | None

    @property
    def pid(self) -> int:
        """Of the process."""

    @property
    def returncode(self) -> int | Any:
        """Exit code, negative for a signal; None while it runs, and until `poll` has been asked."""

    def poll(self) -> int | None:
        """Exit code, or None while it runs."""

    def send_signal(self, sig: int, /) -> None:
        """Send a signal, unless it has ended."""

    def kill(self) -> None:
        """End it at once."""


class BenchProcesses:
    """Starts `bench` commands; one server is kept for all that have the environment of the first."""

    def __init__(self) -> None:
        self._context: ForkServerContext | None = None
        self._environment: dict[str, str] = {}
        self._sources: dict[str, tuple[int, int]] = {}

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], stderr: IO[bytes] | None) -> Started:
        """Start `bench` with these arguments and variables, its standard output in a pipe.

        `stderr` None leaves it this process's own. Raises OSError when there is no process to be had.
        """
        wanted = {**os.environ, **environment, PART_OF_ANOTHER: "1"}
        # A server takes a socket in the temporary folder and handles of its own, for which there may be no room.
        with suppress(OSError, EOFError):
            if self._may_fork(wanted):
                assert self._context is not None
                return _Forked(self._context, arguments, wanted, stderr)
        # -P: modules of the working folder are not imported in the place of installed ones.
        command = [sys.executable, "-P", "-m", "seqbench.cli", *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, bufsize=0, env=wanted)

    def close(self) -> None:
        """End the server."""
        if self._context is not None:
            _end_server()

    def _may_fork(self, wanted: dict[str, str]) -> bool:
        if "forkserver" not in multiprocessing.get_all_start_methods():
            return False
        if self._context is None or not _is_served():
            self._begin(wanted)
        return _read_at_import(wanted) == self._environment and _sources() == self._sources

    def _begin(self, environment: dict[str, str]) -> None:
        from multiprocessing import forkserver

        self._environment, self._sources = _read_at_import(environment), _sources()
        self._context = multiprocessing.get_context("forkserver")
        # An earlier comparison of this process may have left one with another environment.
        _end_server()
        self._context.set_forkserver_preload(_PRELOADED)
        before = dict(os.environ)
        try:
            os.environ.update(environment)
            forkserver.ensure_running()
        finally:
            os.environ.clear()
            os.environ.update(before)


def _end_server() -> None:
    from multiprocessing import forkserver

    with suppress(AttributeError, ChildProcessError):
        forkserver._forkserver._stop()  # type: ignore[attr-defined]


def _is_served() -> bool:
    """Whether the server is alive."""
    from multiprocessing import forkserver

    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    try:
        # Looked at without being buried: multiprocessing waits for it.
        return server is not None and os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


class _Forked:
    """A process of the server, with the manners of `subprocess.Popen`."""

    def __init__(
        self,
        context: ForkServerContext,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        stderr: IO[bytes] | None,
    ) -> None:
        reader, writer = os.pipe()
        try:
            streams = {1: _Stream(writer), **({} if stderr is None else {2: _Stream(stderr.fileno())})}
            self._process = context.Process(
                target=_run, args=(tuple(arguments), dict(environment), os.getcwd(), streams)
            )
            self._process.start()
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self.stdout: IO[bytes] | None = io.FileIO(reader)
        self._seen: psutil.Process | None = None
        with suppress(psutil.NoSuchProcess):
            self._seen = psutil.Process(self.pid)
        self.returncode: int | None = None

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        if self.returncode is None:
            code = self._process.exitcode
            # What multiprocessing says when the server, which alone sees how the process ends, is gone.
            if code == 255 and not _is_served():
                code = None if self._is_at_work() else UNKNOWN
            self.returncode = code
        return self.returncode

    def _is_at_work(self) -> bool:
        with suppress(psutil.NoSuchProcess):
            # An id is given to other processes later, which began at another time.
            return self._seen is not None and self._seen.is_running() and self._seen.status() != psutil.STATUS_ZOMBIE
        return False

    def send_signal(self, sig: int, /) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Stream:
    """An open file that a forked process takes over."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _taken_over, (reduction.DupFd(self._descriptor),)


def _taken_over(duplicate: Any) -> int:
    return duplicate.detach()


def _run(arguments: Sequence[str], environment: Mapping[str, str], folder: str, streams: Mapping[int, int]) -> None:
    """In the forked process: what the console script does."""
    for number, descriptor in streams.items():
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    from seqbench.cli import main

    sys.argv = ["bench", *arguments]
    main()


def _read_at_import(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in _READ_LATER}


def _sources() -> dict[str, tuple[int, int]]:
    """When each file of the core was written, and its size."""
    found = {}
    for path in Path(seqbench.__file__).parent.rglob("*.py"):
        with suppress(OSError):
            status = path.stat()
            found[str(path)] = status.st_mtime_ns, status.st_size
    return found
