"""Which folders outside a store hold runs of it: those that `--output` named. The runs themselves know of no store."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from seqbench.store.damage import tell
from seqbench.store.files import write_json

# One small file for each folder: several processes may be at work in a store.
_NOTES = ".elsewhere"


def remember(runs: Path, folder: Path) -> None:
    """Note in the store `runs` that the folder of a run lies outside it; nothing for one that lies where all do.

    Where the store cannot be written, that is told on standard error: the run itself goes on.
    """
    if folder.resolve().parent.parent == runs.resolve():
        return
    note = _note(runs, folder)
    content = {"folder": _seen_from(runs, folder)}
    with suppress(OSError, ValueError):
        if json.loads(note.read_text(encoding="utf-8")) == content:
            return
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_json(note, content)
    except OSError as error:
        tell(f"bench runs --runs {runs} will not list {folder}: {error.strerror}: {note}")


def forget(runs: Path, folder: Path) -> None:
    """Take back what `remember` has noted."""
    with suppress(OSError):
        _note(runs, folder).unlink(missing_ok=True)


def remembered(runs: Path) -> Iterator[Path]:
    """The noted folders that are there now, in order; a disk that is not there now may come back."""
    folders = []
    with suppress(OSError):
        for note in (runs / _NOTES).glob("*.json"):
            with suppress(OSError, ValueError, LookupError, TypeError):
                folder = Path(os.path.normpath(runs / json.loads(note.read_text(encoding="utf-8"))["folder"]))
                if folder.is_dir():
                    folders.append(folder)
    yield from sorted(folders)


def _note(runs: Path, folder: Path) -> Path:
    return runs / _NOTES / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}.json"


def _seen_from(runs: Path, folder: Path) -> str:
    """Relative to the store where both lie in one folder, which may be moved as a whole; else from the root."""
    place, folder = runs.resolve(), folder.resolve()
    return os.path.relpath(folder, place) if folder.is_relative_to(place.parent) else str(folder)
