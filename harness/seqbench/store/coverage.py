"""Which files of a run its SHA256SUMS must speak of, and which of them are not as they were written."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from seqbench.errors import RequestError
from seqbench.store import names
from seqbench.store.checksums import CHECKSUMS, damaged_files, read_checksums
from seqbench.store.damage import DamagedFile, SurplusFile

_IN_MODEL = f"{names.MODEL}/"


def covered_files(run: Path, complete: bool) -> list[str]:
    """Names of what a result rests on, and of what says how it was made, as they are now.

    run.json is none of them: its hash covers what decides the numbers, and where the data is may change.
    """
    found = [run / names.ENVIRONMENT, run / names.LOG]
    if complete:
        model = sorted((run / names.MODEL).rglob("*"))
        found += [run / names.ITEMS, *(file for file in model if file.name != names.MODEL_CARD)]
    return [file.relative_to(run).as_posix() for file in found if file.is_file()]


def damaged_result(run: Path) -> DamagedFile | None:
    """What is wrong with result.json by its checksum; what it says of other files is believed only without."""
    return next(damaged_files(run, (names.RESULT,), lambda name: name == names.RESULT), None)


def damaged_beside(run: Path, result: Mapping[str, Any], weights: bool) -> Iterator[DamagedFile]:
    """What is wrong with the files that a result, itself as it was written, names.

    The folder model/ may be gone as a whole; without `weights` nothing in it is looked at.
    """
    looks_at_model = weights and os.path.lexists(run / names.MODEL)
    required = result.get("files", [names.ITEMS] if result["status"] == "complete" else [])
    yield from damaged_files(run, required, lambda name: looks_at_model or not name.startswith(_IN_MODEL))
    if looks_at_model:
        yield from _surplus_files(run)


def remarks(run: Path, result: Mapping[str, Any]) -> list[str]:
    """What a reader of the result has to know of its files: which nobody can vouch for, and which were removed."""
    found = []
    if "files" not in result:
        found.append(f"an older version wrote it: {names.LOG} and {names.ENVIRONMENT} are not covered by checksums")
    if not os.path.lexists(run / names.MODEL):
        with suppress(RequestError):
            if any(name.startswith(_IN_MODEL) for name in read_checksums(run)):
                found.append(f"{_IN_MODEL} was removed")
    return found


def _surplus_files(run: Path) -> Iterator[SurplusFile]:
    """What lies in model/ and nobody vouches for: transformers chooses by name what it reads there."""
    known, model = read_checksums(run), run / names.MODEL
    for file in sorted(model.rglob("*")) if model.is_dir() else ():
        mine = file.name == names.MODEL_CARD or file.name.startswith(".") or ".corrupt-" in file.name
        if (not file.is_dir() or file.is_symlink()) and not mine and file.relative_to(run).as_posix() not in known:
            yield SurplusFile(file, f"{CHECKSUMS} does not speak of it")
