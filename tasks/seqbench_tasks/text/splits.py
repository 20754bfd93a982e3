"""The splits that names of files and folders stand for."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

_ALIASES = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
_SPLIT_OF = {alias: split for split, aliases in _ALIASES.items() for alias in aliases}
# train, train.jsonl, train-00000-of-00004.parquet, but not train-of-thought.txt.
_NAMED = re.compile(rf"({'|'.join(_SPLIT_OF)})(?:$|\.|[-_]\d)", re.IGNORECASE)


def named_splits(paths: Sequence[str]) -> list[str | None]:
    """The split that each path names with its first part, below a folder that all have in common."""
    parts = [PurePosixPath(path).parts for path in paths]
    while len({path[0] for path in parts}) == 1 and min(map(len, parts)) > 1 and split_called(parts[0][0]) is None:
        parts = [path[1:] for path in parts]
    return [split_called(path[0]) for path in parts]


def split_called(name: str) -> str | None:
    """The split that a file, folder or split of that name holds; None for other names."""
    match = _NAMED.match(name)
    return _SPLIT_OF[match[1].lower()] if match else None
