"""Small files of the cache that are there whole or not at all, and say so."""

import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

from seqbench.errors import RequestError
from seqbench_tasks.text.cache import CACHE_VARIABLE, make_folder
from seqbench_tasks.text.open_files import open_file

UNFINISHED = ".unfinished"


def write_record(path: Path, record: Any) -> None:
    """Write plain JSON data beside the place, flush and rename: a line with the hash of the next, which is the data.

    Raises OSError when the folder cannot be written.
    """
    text = json.dumps(record).encode()
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}{UNFINISHED}")
    make_folder(path.parent)
    try:
        with unfinished.open("wb") as file:
            file.write(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_record(path: Path) -> Any:
    """What `write_record` has written. Raises OSError when it is not there, ValueError when it is anything else."""
    with open_file(path) as file:
        digest, _, text = file.readall().partition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != digest:
        raise ValueError(f"{path} is not what was written")
    return json.loads(text)


def unwritable(folder: Path, error: OSError) -> RequestError:
    """What to raise where a folder of the cache cannot be written."""
    return RequestError(
        f"unpacked text cannot be kept in {folder}: {error}\nname a folder with room in the variable {CACHE_VARIABLE}"
    )
