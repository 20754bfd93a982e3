"""attempts.jsonl: what stopped a run that has no result yet, without being one."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from seqbench.errors import Circumstance, RequestError
from seqbench.store.files import append_line
from seqbench.store.forms import ATTEMPT
from seqbench.store.reader import read_lines
from seqbench.store.run_folder import RunFolder
from seqbench.store.sealed import sealed_line, unsealed


def record_attempt(folder: RunFolder, circumstance: Circumstance) -> None:
    """Count an attempt that circumstance has ended; where the folder takes nothing, it is not counted there."""
    row = {
        "reason": circumstance.reason,
        "detail": circumstance.detail,
        "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    with suppress(OSError, RequestError):
        if folder.read_run() is not None:
            append_line(folder.attempts, sealed_line(row))


def attempts(folder: RunFolder) -> list[str]:
    """The reasons of all attempts that circumstance has ended since the run was begun; damaged lines do not count."""
    found = []
    with suppress(OSError, RequestError):
        for line in read_lines(folder.attempts):
            with suppress(ValueError):
                row = unsealed(line.removesuffix(b"\n"))
                ATTEMPT(row)
                found.append(row["reason"])
    return found


def in_words(reasons: Sequence[str]) -> str:
    """What has ended attempts and how often, such as "killed from outside 3 times"; empty where nothing has."""
    return ", ".join(f"{Circumstance.WORDS[reason]} {_times(count)}" for reason, count in Counter(reasons).items())


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def forget_attempts(folder: RunFolder) -> None:
    """There is a result: what came before it is no longer of interest."""
    if folder.attempts.exists():
        folder.attempts.unlink()
