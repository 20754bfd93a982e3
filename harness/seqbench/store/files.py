"""Writing files so that a reader sees the old content or the new one, never a part, whatever ends the process."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from seqbench.store.damage import DamagedFile

# What is being written, or removed, has a name of its own: .<name>.<process id>.tmp<suffix>.
_TEMPORARY = re.compile(r"\..+\.(?P<process>\d+)\.tmp(\.\w+)?")


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk and rename it over `path`."""
    # The suffix stays last: some writers choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(temporary)
        flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush(path.parent)


def write_folder_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder beside `path`, flush it to the disk and let it take the place of `path`.

    A process that ends between the last two steps leaves no folder `path`, and never a part of one.
    """
    temporary = _temporary_folder(path)
    temporary.mkdir(parents=True)
    try:
        write(temporary)
        for entry in [*temporary.rglob("*"), temporary]:
            flush(entry)
        if path.exists():
            remove_folder(path)
        temporary.rename(path)
    finally:
        # Room is made at once: what failed may have failed for want of it.
        shutil.rmtree(temporary, ignore_errors=True)
    flush(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder such that no part of it is left under its name."""
    doomed = _temporary_folder(path, "removed")
    path.rename(doomed)
    shutil.rmtree(doomed)


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove what killed processes have left half done directly in `folder`; with `name`, only under that name.

    To be called while this process is writing nothing there.
    """
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if is_temporary(entry) and entry.name.startswith(f".{name}." if name else ".") and not _at_work(entry):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)


def is_temporary(path: Path) -> bool:
    """Whether the name is one that this module gives while it writes or removes."""
    return _TEMPORARY.fullmatch(path.name) is not None


def flush(path: Path) -> None:
    """Return when the disk has the file's content, or the folder's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot flush a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write text atomically."""
    write_atomically(path, lambda temporary: _write(temporary, text))


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, indented, keys in the given order. NaN and infinities become null: JSON has none."""
    write_text(path, json_text(content))


def json_text(content: Any) -> str:
    """What `write_json` writes."""
    return json.dumps(finite(content), indent=2, allow_nan=False) + "\n"


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON document per line, atomically."""
    write_text(path, "".join(json_line(row) for row in rows))


def json_line(row: Any) -> str:
    """One line of a JSON-lines file."""
    return json.dumps(finite(row), allow_nan=False) + "\n"


def append_line(path: Path, line: str) -> None:
    """Append a line, which ends with a newline, and return when the disk has it.

    One that a killed process has left half written does not swallow this one.
    """
    with path.open("a+b") as file:
        if file.seek(0, os.SEEK_END) and not _ends_with_newline(path):
            file.write(b"\n")
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def read_json_lines(path: Path) -> list[Any]:
    """The rows of a JSON-lines file; a last line that was cut off by a crash is left out.

    Raises DamagedFile when another line cannot be read.
    """
    rows, unreadable = sort_json_lines(path)
    if unreadable:
        raise DamagedFile(path, f"line {unreadable[0]} is not JSON")
    return rows


def sort_json_lines(path: Path, expected: Callable[[Any], bool] = lambda row: True) -> tuple[list[Any], list[int]]:
    """The rows of a JSON-lines file, and the numbers (from 1) of the lines that are no JSON, or not as `expected`.

    A last line that does not end was cut off by a crash and is among neither.
    """
    *lines, _ = path.read_bytes().split(b"\n")
    rows, unreadable = [], []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            unreadable.append(number)
            continue
        if expected(row):
            rows.append(row)
        else:
            unreadable.append(number)
    return rows, unreadable


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


def _temporary_folder(path: Path, purpose: str = "written") -> Path:
    """A name beside `path` that nothing has."""
    folder = path.with_name(f".{path.name}.{purpose}.{os.getpid()}.tmp")
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _at_work(temporary: Path) -> bool:
    """Whether a temporary name belongs to another process that lives: plots are drawn without holding a run's lock."""
    match = _TEMPORARY.fullmatch(temporary.name)
    assert match is not None
    process = int(match["process"])
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
