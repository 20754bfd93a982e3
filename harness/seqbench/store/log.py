"""Reading metrics.jsonl: the rows that are as they were written, and which lines are not."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqbench.store.damage import DamagedFile
from seqbench.store.forms import LOG_LINE
from seqbench.store.reader import parse, read_lines
from seqbench.store.sealed import has_seal, unsealed


@dataclass(frozen=True)
class Log:
    """What a log holds.

    Attributes:
        rows: those that are as they were written.
        unreadable: numbers, from 1, of the lines that are not.
        sealed: whether lines carry checksums; an earlier version wrote none.
    """

    rows: list[dict[str, Any]]
    unreadable: list[int]
    sealed: bool


def read_log(path: Path) -> Log:
    """The log in a file; empty when there is none.

    A last line without a line feed was cut off by a crash and is passed over, unless it is whole. Raises DamagedFile
    when there is something else than a file.
    """
    lines = list(_lines(path))
    # One line with a checksum is enough: a damaged one must not pass for one that never had any.
    sealed = any(has_seal(line) for line, _ in lines)
    rows, unreadable = [], []
    for number, (line, ends) in enumerate(lines, start=1):
        row = _row(line, ends, sealed)
        if row is not None:
            rows.append(row)
        elif ends:
            unreadable.append(number)
    return Log(rows, unreadable, sealed or not lines)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a log that is whole. Raises DamagedFile naming the first line that is not."""
    log = read_log(path)
    if log.unreadable:
        raise DamagedFile(path, f"line {log.unreadable[0]} is not as it was written")
    return log.rows


def missing_steps(rows: list[dict[str, Any]], step: int) -> int:
    """How many of the first `step` steps no row tells of, where none says that something was lost."""
    trained = [row for row in rows if row["kind"] == "train"]
    # Lines of an earlier version have means only.
    if any(row["kind"] == "damage" or "losses" not in row for row in rows if row["kind"] in ("train", "damage")):
        return 0
    told = {row["step"] - back for row in trained for back in range(len(row["losses"]))}
    return step - sum(1 <= number <= step for number in told)


def _row(line: bytes, ends: bool, sealed: bool) -> dict[str, Any] | None:
    # Without its line feed a line may be whole, or have one that is damaged; its checksum tells.
    for candidate in (line,) if ends else (line, line[:-1]) if sealed else ():
        try:
            row = unsealed(candidate) if sealed else parse(candidate)
            LOG_LINE(row)
        except ValueError:
            continue
        return row
    return None


def _lines(path: Path) -> list[tuple[bytes, bool]]:
    """Each line without its line feed, and whether it has one."""
    try:
        return [(line.removesuffix(b"\n"), line.endswith(b"\n")) for line in read_lines(path)]
    except FileNotFoundError:
        return []
