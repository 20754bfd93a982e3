"""Parts of a long evaluation, kept so that one that was interrupted goes on behind them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from seqbench.store.damage import DamagedFile, copy_aside, set_aside
from seqbench.store.files import append_line, write_text
from seqbench.store.forms import EVALUATION_PART
from seqbench.store.reader import read_lines
from seqbench.store.sealed import sealed_line, unsealed


class EvaluationRecords:
    """Records by key in a file of lines, each with a checksum of its own.

    A line that was not written to its end counts as not there, and so does a damaged one, which is named: its part is
    computed again.

    Args:
        path: of the file; made with the first record.
        belongs_to: what the records were measured on; those of anything else are not used.
    """

    def __init__(self, path: Path, belongs_to: str) -> None:
        self._path, self._belongs_to = path, belongs_to
        self._known = {row["key"]: row["record"] for row in _whole_rows(path) if row["belongs_to"] == belongs_to}

    def get(self, key: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The record of `key`: the stored one, or what `compute` returns, which is on the disk before it is returned.

        The record is as JSON gives it back, whether stored or new, so that both ways give the same numbers.
        """
        if key not in self._known:
            line = sealed_line({"key": key, "belongs_to": self._belongs_to, "record": dict(compute())})
            append_line(self._path, line)
            self._known[key] = unsealed(line.removesuffix("\n").encode())["record"]
        return self._known[key]

    def remove(self) -> None:
        """Forget everything: the evaluation is finished, or what it measured has changed."""
        # Most evaluations keep none: a run without them changes no file here.
        if self._path.exists():
            self._path.unlink()
        self._known = {}


def _whole_rows(path: Path) -> list[dict[str, Any]]:
    """What is as it was written; what is not is set aside by name."""
    try:
        lines = list(read_lines(path))
    except FileNotFoundError:
        return []
    except DamagedFile as damage:
        set_aside(path, path, damage.why)
        return []
    rows, whole, damaged = [], [], None
    for number, line in enumerate(lines, start=1):
        try:
            row = unsealed(line.removesuffix(b"\n"))
            EVALUATION_PART(row)
        except ValueError as error:
            # The beginning of a line is what a killed process left.
            if line.endswith(b"}\n"):
                damaged = damaged or f"line {number}: {error}"
            continue
        rows.append(row)
        whole.append(line)
    if damaged is not None:
        copy_aside(path, damaged)
        write_text(path, b"".join(whole).decode())
    return rows
