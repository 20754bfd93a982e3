"""Taking runs out of a store: nothing but what is provably a run, whole, and finished when it was begun."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from seqbench.errors import Busy, RequestError
from seqbench.store import names
from seqbench.store.checksums import CHECKSUMS, read_checksums
from seqbench.store.files import is_temporary, temporary_folder
from seqbench.store.lock import LOCK, acquire, is_locked
from seqbench.store.run_folder import RunFolder

_FOLDERS = (names.CHECKPOINTS, names.MODEL)
_OWN = (
    *(names.RUN, names.ENVIRONMENT, names.RESULT, names.ITEMS, names.LOG, names.EVALUATION, names.ATTEMPTS),
    *(CHECKSUMS, LOCK, *_FOLDERS, names.PLOT, names.TRAINING_PLOT, names.TRACEBACK),
)
_CHECKPOINT = re.compile(r"step-\d{8,}")
_IN_CHECKPOINT = ("model.safetensors", "optimizers.safetensors", "random.safetensors", "state.json", CHECKSUMS)
_ASIDE = re.compile(r"(?P<name>.+)\.corrupt-\d+")
_BEING_REMOVED = re.compile(r"\..+\.removed\.\d+\.tmp")


def require_removable(folder: Path) -> None:
    """Raise RequestError, naming what is in the way, unless `folder` is a run and holds nothing else."""
    if folder.is_symlink():
        raise RequestError(f"{folder} is a link to {os.readlink(folder)}; remove the link, or the run there, by hand")
    if RunFolder(folder).named_by() is None:
        raise RequestError(
            f"{folder} is not known to be a run of bench: neither {names.RUN} nor {names.ENVIRONMENT} says so\n"
            "remove it by hand, or leave it out with --state or --hash"
        )
    foreign = next(foreign_entries(folder), None)
    if foreign is not None:
        raise RequestError(
            f"{foreign} was not written by bench; move it away, or leave its run out with --state or --hash"
        )


def remove_run(folder: Path) -> None:
    """Delete a run. Raises Busy while a process is at work on it, and RequestError as `require_removable` does."""
    require_removable(folder)
    with RunFolder(folder).locked():
        # Somebody may have put something there while the lock was waited for.
        require_removable(folder)
        doomed = temporary_folder(folder, "removed")
        folder.rename(doomed)
        _take_apart(doomed)


def finish_removals(place: Path) -> None:
    """Go on with removals of runs directly in `place` that were killed; what is not provably one is left alone."""
    with suppress(OSError):
        for folder in [entry for entry in place.iterdir() if _BEING_REMOVED.fullmatch(entry.name)]:
            # On a disk that cannot be written there is nothing to be finished.
            with suppress(OSError, Busy):
                if _is_remainder(folder) and not is_locked(folder):
                    with acquire(folder):
                        _take_apart(folder)


def foreign_entries(folder: Path) -> Iterator[Path]:
    """What lies in the folder of a run and was not written there by bench; links count, whatever they lead to."""
    for entry in sorted(folder.iterdir()):
        name = _written_name(entry)
        if entry.is_symlink() or not (name in _OWN or is_temporary(entry)):
            yield entry
        elif entry.is_dir() and entry.name in _FOLDERS:
            yield from _foreign_in_checkpoints(entry) if name == names.CHECKPOINTS else _foreign_in_model(entry)


def _foreign_in_checkpoints(checkpoints: Path) -> Iterator[Path]:
    for entry in sorted(checkpoints.iterdir()):
        if entry.is_symlink() or not (_CHECKPOINT.fullmatch(_written_name(entry)) or is_temporary(entry)):
            yield entry
        elif entry.is_dir() and not is_temporary(entry):
            yield from (file for file in sorted(entry.iterdir()) if _written_name(file) not in _IN_CHECKPOINT)


def _foreign_in_model(model: Path) -> Iterator[Path]:
    """What SHA256SUMS does not speak of; a model that is not in it was not finished, and is what its plugin wrote."""
    known: dict[str, str] = {}
    with suppress(RequestError):
        known = read_checksums(model.parent)
    if not any(name.startswith("model/") for name in known):
        return
    for file in sorted(model.rglob("*")):
        is_known = f"model/{file.relative_to(model).as_posix()}" in known or file.name == "README.md"
        if not file.is_dir() and not is_known and not _ASIDE.fullmatch(file.name):
            yield file


def _written_name(entry: Path) -> str:
    """The name under which bench wrote it, before it was set aside."""
    match = _ASIDE.fullmatch(entry.name)
    return match["name"] if match else entry.name


def _is_remainder(folder: Path) -> bool:
    """Whether a folder with such a name is a run, or what is left of one."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    if any(foreign_entries(folder)):
        return False
    return RunFolder(folder).named_by() is not None or all(entry.name == LOCK for entry in folder.iterdir())


def _take_apart(folder: Path) -> None:
    """What proves whose a folder is goes last, so that a removal that is stopped can be told from another folder."""
    last = [names.ENVIRONMENT, names.RUN, LOCK] if _names_itself(folder) else [names.RUN, names.ENVIRONMENT, LOCK]
    for entry in sorted(folder.iterdir(), key=lambda entry: last.index(entry.name) if entry.name in last else -1):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
    folder.rmdir()


def _names_itself(folder: Path) -> bool:
    with suppress(RequestError):
        return RunFolder(folder).read_run() is not None
    return False
