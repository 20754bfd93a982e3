"""Errors meant for the person who typed the command.

The command line prints them as one message without a traceback. `RequestError` means that the request itself was wrong
(exit code 2); `RunFailure` means that a run was started and could not be finished, which is recorded as a result
(exit code 1); `Circumstance` that what surrounds a run stopped it, which is no result: the same command tries again
(exit code 1 too).
"""

from typing import ClassVar

EXIT_FAILED, EXIT_WRONG_REQUEST = 1, 2
# What a shell says of processes that SIGPIPE has ended; other signals: `seqbench.surroundings.stopping`.
EXIT_BROKEN_PIPE = 141


class RequestError(Exception):
    """The request cannot be carried out as typed: what is wrong, with which value, and what to type instead.

    `status` is what the command line's JSON calls it.
    """

    status: ClassVar[str] = "refused"


class Busy(RequestError):
    """Another process is at work on the same; the request may be carried out later."""

    status = "busy"


class RunFailure(Exception):
    """A run that started and cannot finish. `reason` is a short machine-readable word, such as "divergence"."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def first_line(error: Exception) -> str:
    """Kind and message of a library's error, without the advice that follows in further lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}" if lines else type(error).__name__


class Circumstance(Exception):
    """What surrounds a run stopped it: no room on the disk, a kill from outside, no process to be had.

    It says nothing about the run and is no result. `reason` is one of the keys of `WORDS`, `detail` what exactly
    happened. `status` is what the command line's JSON calls it.
    """

    WORDS: ClassVar[dict[str, str]] = {
        "killed": "killed from outside",
        "memory-taken": "other programs hold the memory",
        "no-process": "no process or file handle to be had",
        "no-room": "the disk takes nothing more",
        "removed": "the folder was removed",
    }

    status: ClassVar[str] = "unfinished"

    def __init__(self, reason: str, detail: str) -> None:
        goes_on = "begins anew" if reason == "removed" else "goes on when that has changed"
        super().__init__(f"{self.WORDS[reason]} ({detail}); the same command {goes_on}")
        self.reason, self.detail = reason, detail
