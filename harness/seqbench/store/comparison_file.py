"""comparison.json: whose runs it is of, when any of its bits may have changed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqbench.store.damage import DamagedFile, set_aside
from seqbench.store.files import json_text, write_text
from seqbench.store.forms import COMPARISON, fits
from seqbench.store.reader import parse, read_bytes
from seqbench.store.sealed import is_as_sealed


def write_comparison(path: Path, content: Mapping[str, Any]) -> None:
    """Write what `sealed_document` returned."""
    write_text(path, json_text(content))


def compared_runs(path: Path, expected: Sequence[str]) -> list[str] | None:
    """The hashes of the runs that a stored comparison is of, none for something else; None when there is none.

    What is damaged and may be of the `expected` runs is named and set aside. Raises RequestError when it may not be
    read.
    """
    try:
        content = parse(read_bytes(path))
    except FileNotFoundError:
        return None
    except (DamagedFile, ValueError) as damage:
        set_aside(path, path, damage.why if isinstance(damage, DamagedFile) else str(damage))
        return None
    if fits(COMPARISON, content) and (content["runs"] == list(expected) or is_as_sealed(content)):
        return list(content["runs"])
    if not _speaks_of(content, expected):
        return []
    set_aside(path, path, "it differs from its checksum")
    return None


def _speaks_of(content: Any, runs: Sequence[str]) -> bool:
    """Whether the hash of one of the runs is anywhere in it."""
    text = json_text(content)
    return any(run in text for run in runs)
