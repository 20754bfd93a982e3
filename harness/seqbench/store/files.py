"""Writing files so that a reader sees the old content or the new one, never a part."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk and rename it over `path`."""
    # The suffix stays last: some writers choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text atomically."""
    write_atomically(path, lambda temporary: _write(temporary, text))


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, indented, keys in the given order. NaN and infinities become null: JSON has none."""
    write_text(path, json.dumps(finite(content), indent=2, allow_nan=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON document per line, atomically."""
    write_text(path, "".join(json_line(row) for row in rows))


def json_line(row: Any) -> str:
    """One line of a JSON-lines file."""
    return json.dumps(finite(row), allow_nan=False) + "\n"


def read_json_lines(path: Path) -> list[Any]:
    """The rows of a JSON-lines file; a last line that was cut off by a crash is left out."""
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def finite(content: Any) -> Any:
    """`content` with NaN and infinite numbers replaced by None, at any depth."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    if isinstance(content, float) and (content != content or content in (float("inf"), float("-inf"))):
        return None
    return content


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
