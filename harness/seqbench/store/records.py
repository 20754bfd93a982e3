"""Parts of a long evaluation, kept so that one that was interrupted goes on behind them."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from seqbench.store.files import append_line, json_line


class EvaluationRecords:
    """Records by key in a file of lines, each with a checksum of its own.

    A line that is damaged, or was not written to its end, counts as not there: its part is computed again.

    Args:
        path: of the file; made with the first record.
        belongs_to: what the records were measured on; those of anything else are not used.
    """

    def __init__(self, path: Path, belongs_to: str) -> None:
        self._path, self._belongs_to = path, belongs_to
        self._known = dict(self._read())

    def get(self, key: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The record of `key`: the stored one, or what `compute` returns, which is on the disk before it is returned.

        The record is as JSON gives it back, whether stored or new, so that both ways give the same numbers.
        """
        if key not in self._known:
            line = json.loads(json_line({"key": key, "belongs_to": self._belongs_to, "record": dict(compute())}))
            append_line(self._path, json_line({**line, "sha256": _digest(line)}))
            self._known[key] = line["record"]
        return self._known[key]

    def remove(self) -> None:
        """Forget everything: the evaluation is finished, or what it measured has changed."""
        # Most evaluations keep none: a run without them changes no file here.
        if self._path.exists():
            self._path.unlink()
        self._known = {}

    def _read(self) -> list[tuple[str, dict[str, Any]]]:
        if not self._path.exists():
            return []
        found = []
        for text in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
                digest = line.pop("sha256")
                if digest == _digest(line) and line["belongs_to"] == self._belongs_to:
                    found.append((line["key"], line["record"]))
            except (ValueError, KeyError, AttributeError, TypeError):
                continue
        return found


def _digest(line: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()
