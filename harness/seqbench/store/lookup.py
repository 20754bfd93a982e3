"""A stored run by what `bench runs` calls it: its folder, its hash or its name."""

import re
from collections.abc import Iterator
from pathlib import Path

from seqbench.errors import RequestError
from seqbench.store.catalogue import run_folders
from seqbench.store.run_folder import RunFolder

# Fewer digits are a word more often than a hash.
_HASH = re.compile("[0-9a-f]{4,64}")


def find_run(text: str, runs: Path) -> Path:
    """The folder of the run called `text`.

    A folder goes before the hash of a run in the store `runs`, of which the first digits suffice, and before the name
    of its folder, with or without the task before it. Raises RequestError when there is no such run, or several.
    """
    folder = Path(text)
    if folder.is_dir():
        return folder
    found = dict.fromkeys(_called(text, runs)) if runs.is_dir() else {}
    if not found:
        raise RequestError(
            f"there is no run {text!r}: no folder, and no hash or name of a run in {runs}; type bench runs for a list,"
            " or name another store with --runs"
        )
    if len(found) > 1:
        raise RequestError(f"{text!r} is said of several runs: {', '.join(map(str, found))}; type the folder of one")
    return next(iter(found))


def is_meant(text: str, runs: Path) -> bool:
    """Whether a text is a folder, looks like a hash or like a name that ends in one, or is the name of a run."""
    looks_like_one = re.fullmatch(rf"(.+-)?{_HASH.pattern}", text) is not None
    return looks_like_one or Path(text).is_dir() or (runs.is_dir() and any(_called(text, runs)))


def _called(text: str, runs: Path) -> Iterator[Path]:
    for folder in run_folders(runs):
        if text in (folder.name, f"{folder.parent.name}/{folder.name}") or (
            _HASH.fullmatch(text) and (RunFolder(folder).named_by() or "").startswith(text)
        ):
            yield folder
