"""Writing files so that a reader sees the old content or the new one, never a part, whatever ends the process."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from seqbench.store.damage import DamagedFile, set_aside
from seqbench.store.reader import parse, read_lines
from seqbench.store.schema import Check, anything

# What is being written, or removed, has a name of its own: .<name>.<process id>.tmp<suffix>.
_TEMPORARY = re.compile(r"\..+\.(?P<process>\d+)\.tmp(\.\w+)?")


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk and rename it over `path`."""
    # The suffix stays last: some writers choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(temporary)
        flush(temporary)
        if path.is_dir() and not path.is_symlink():
            set_aside(path, path, "it is a folder, not a file")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush(path.parent)


def write_folder_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder beside `path`, flush it to the disk and let it take the place of `path`.

    A process that ends between the last two steps leaves no folder `path`, and never a part of one.
    """
    temporary = temporary_folder(path)
    temporary.mkdir(parents=True)
    try:
        write(temporary)
        for entry in [*temporary.rglob("*"), temporary]:
            flush(entry)
        if path.is_dir():
            remove_folder(path)
        elif os.path.lexists(path):
            set_aside(path, path, "it is no folder")
        temporary.rename(path)
    finally:
        # Room is made at once: what failed may have failed for want of it.
        shutil.rmtree(temporary, ignore_errors=True)
    flush(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder such that no part of it is left under its name; of a link to one, the link alone."""
    if path.is_symlink():
        path.unlink()
        return
    doomed = temporary_folder(path, "removed")
    path.rename(doomed)
    shutil.rmtree(doomed)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes have left half done directly in `folder`, which is bench's.

    To be called while this process is writing nothing there.
    """
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if is_temporary(entry) and not _at_work(entry):
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
    """Append a line, which ends with a newline, and return when the disk has it: the whole line, or nothing of it.

    One that a killed process has left half written does not swallow this one.
    """
    # Without a buffer, which would try again to write what found no room.
    with path.open("a+b", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        rest = (b"\n" if before and not _ends_with_newline(path) else b"") + line.encode()
        try:
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def read_json_lines(path: Path, form: Check = anything) -> list[Any]:
    """The rows of a JSON-lines file, each of this form; a last line that was cut off by a crash is left out.

    Raises FileNotFoundError when there is none, and DamagedFile when another line cannot be read.
    """
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            row = parse(line)
            form(row)
        except ValueError as error:
            raise DamagedFile(path, f"line {number} is not as it was written: {error}") from error
        rows.append(row)
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


def temporary_folder(path: Path, purpose: str = "written") -> Path:
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
