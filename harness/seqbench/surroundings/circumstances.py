"""What of an error, or of the end of a process, is circumstance and no property of the run."""

import errno
import os
import re
import signal
from collections.abc import Iterator

from seqbench.errors import Circumstance

# A full disk, a spent quota, a file larger than is allowed, a disk that has become read-only or does not answer.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)
# No process, thread or open file is to be had, or no memory for a fork.
_NO_PROCESS = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)

_REASONS = dict.fromkeys(_NO_ROOM, "no-room") | dict.fromkeys(_NO_PROCESS, "no-process")
# Libraries in other languages have error types of their own, in which the system's number or words remain. "Out of
# memory" and "try again" have other meanings too: there the words alone do not count.
_NUMBER = re.compile(r"(?:os error |Errno |errno[ =:]+)(\d+)")
_WORDS = {os.strerror(number): _REASONS[number] for number in (*_NO_ROOM, errno.EMFILE, errno.ENFILE)}
_THREADS = ("can't start new thread", "Thread creation failed", "pthread_create failed")

# Raised by the process itself, in code that went wrong; every other signal comes from outside. A limit to processor
# time or to the size of files is set from outside too.
_CRASHES = {
    getattr(signal, name)
    for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP")
    if hasattr(signal, name)
}


def circumstance_of(error: BaseException) -> Circumstance | None:
    """The circumstance that an error tells of, or None when it is one of the run itself.

    Looked for in what the error was raised from too, since libraries wrap what the system told them.
    """
    for cause in _chain(error):
        if isinstance(cause, Circumstance):
            return cause
        reason = _reason(cause)
        if reason is not None:
            return Circumstance(reason, in_one_line(cause))
    return None


def told_in(text: str) -> Circumstance | None:
    """The circumstance that a program's last words tell of, or None."""
    for line in text.splitlines():
        reason = _reason_in(line)
        if reason is not None:
            return Circumstance(reason, line.strip())
    return None


def is_crash(number: int) -> bool:
    """Whether a process that was ended by this signal went wrong itself."""
    return number in _CRASHES


def signal_name(number: int) -> str:
    """SIGKILL for 9; "signal 40" for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def in_one_line(error: BaseException) -> str:
    """What an error says in one line; the system's words alone where it is the system's."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
    return (str(error).splitlines() or [type(error).__name__])[0]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)


def _reason(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno is not None:
        return _REASONS.get(error.errno)
    return _reason_in(str(error))


def _reason_in(text: str) -> str | None:
    found = _NUMBER.search(text)
    if found and int(found[1]) in _REASONS:
        return _REASONS[int(found[1])]
    if any(words in text for words in _THREADS):
        return "no-process"
    return next((reason for words, reason in _WORDS.items() if words in text), None)
