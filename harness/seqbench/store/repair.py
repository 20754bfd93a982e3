"""A run's folder brought into a state to go on from, after whatever has happened to it."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from seqbench.errors import RequestError
from seqbench.store import names
from seqbench.store.damage import DamagedFile, SurplusFile, copy_aside, set_aside, tell
from seqbench.store.files import json_line, remove_leftovers, write_json
from seqbench.store.log import read_log
from seqbench.store.reader import parse
from seqbench.store.removal import finish_removals
from seqbench.store.run_folder import RunFolder, damage_line

# A result does not follow from these: they are mended, and it stands.
_BESIDE_THE_RESULT = (names.ENVIRONMENT, names.LOG)

_MADE_ANEW = (names.EVALUATION, names.ATTEMPTS, names.TRACEBACK, names.PLOT, names.TRAINING_PLOT)


def repair(folder: RunFolder, run: dict[str, Any]) -> None:
    """Mend the folder of this very run, for the process that holds its lock.

    What killed processes have left half done is removed. Files that are not as they were written are named on standard
    error and set aside as <name>.corrupt-<n>; when a result rests on one of them, it is forgotten, so that the run goes
    on from its last checkpoint. A folder that holds something else is left alone.

    Args:
        folder: of the run, or where it will be.
        run: what its run.json has to say.

    Raises RequestError for files of another program or of a newer version.
    """
    finish_removals(folder.path.parent)
    if not _belongs_to(folder, run):
        return
    for place in (folder.path, folder.checkpoints, folder.model):
        remove_leftovers(place)
    damages = list(folder.damages())
    _mend_places(folder)
    _mend_request(folder, run)
    _mend_result(folder, damages)
    _mend_environment(folder, run["hash"], damages)
    _mend_log(folder, damages)
    if damages and os.path.lexists(folder.path / names.RESULT):
        folder.vouch_for(_BESIDE_THE_RESULT)


def _belongs_to(folder: RunFolder, run: dict[str, Any]) -> bool:
    told_twice = _told_twice(folder) == run["hash"]
    try:
        stored = folder.read_run(hash_fits=False)
    except RequestError:
        if told_twice:
            return True
        raise
    if stored is None:
        return told_twice or folder.is_vacant()
    # One of the two may have lost a bit.
    return stored["hash"] == run["hash"] or stored["identity"] == _plain(run)["identity"]


def _told_twice(folder: RunFolder) -> str | None:
    """The hash of the run according to environment.json, or None where that does not tell."""
    with suppress(RequestError):
        return folder.read_environment().get("run")
    return None


def _mend_places(folder: RunFolder) -> None:
    """Set aside what is no folder where one belongs, and no file where one is written; links may lead to both."""
    for place in (folder.checkpoints, folder.model):
        if os.path.lexists(place) and not place.is_dir():
            set_aside(place, place, "it is no folder")
    for place in (folder.path / name for name in _MADE_ANEW):
        if os.path.lexists(place) and not place.is_file():
            set_aside(place, place, "it is no file")


def _mend_request(folder: RunFolder, run: dict[str, Any]) -> None:
    path, damage = folder.path / names.RUN, None
    try:
        stored = folder.read_run(hash_fits=False)
        if stored is not None and (stored["hash"], stored["identity"]) != (run["hash"], _plain(run)["identity"]):
            damage = DamagedFile(path, "hash and identity do not belong together")
    except RequestError as error:
        damage = DamagedFile(path, _why(error))
    if damage is None and not (_told_twice(folder) == run["hash"] and not os.path.lexists(path)):
        return
    if damage is not None:
        _keep_copy(path, damage.why)
    write_json(path, run)


def _mend_environment(folder: RunFolder, run_hash: str, damages: Sequence[DamagedFile]) -> None:
    path = folder.path / names.ENVIRONMENT
    damage = _damage_to(path, damages)
    try:
        folder.read_environment()
    except RequestError as error:
        damage = damage or DamagedFile(path, _why(error))
    if damage is None:
        return
    _keep_copy(path, damage.why)
    path.unlink(missing_ok=True)
    if os.path.lexists(folder.path / names.RESULT):
        # On what the finished run was made is lost; whose it is must still be told twice.
        folder.write_environment({"run": run_hash})


def _mend_result(folder: RunFolder, damages: Sequence[DamagedFile]) -> None:
    """Set aside what the result rests on and is damaged, and with it the result."""
    for damage in damages:
        if isinstance(damage, SurplusFile):
            set_aside(damage.path, damage.path, damage.why)
    wrong = [damage for damage in damages if not isinstance(damage, SurplusFile) and damage.path not in _beside(folder)]
    result = folder.path / names.RESULT
    if wrong and _damage_to(result, wrong) is None and os.path.lexists(result):
        # First of all: without its result the run is known to be unfinished, whatever happens here.
        set_aside(result, wrong[0].path, wrong[0].why)
    for damage in wrong:
        # In model/ everything is written at once, so it goes as a whole.
        top = folder.path / damage.path.relative_to(folder.path).parts[0]
        if os.path.lexists(top):
            set_aside(top, damage.path, damage.why)


def _mend_log(folder: RunFolder, damages: Sequence[DamagedFile]) -> None:
    """Take out lines that cannot be read. No training is repeated for them: no other file rests on them.

    The log says afterwards that it has lost something.
    """
    path = folder.metrics
    damage = _damage_to(path, damages)
    try:
        log = read_log(path)
    except DamagedFile as error:
        set_aside(path, path, error.why)
        folder.write_log([damage_line(f"all lines before: {error.why}")])
        return
    if not log.unreadable and damage is None:
        return
    why = f"line {log.unreadable[0]} cannot be read; left out" if log.unreadable else damage.why if damage else ""
    _keep_copy(path, why)
    folder.write_log([*log.rows, damage_line(why)])


def _beside(folder: RunFolder) -> list[Path]:
    return [folder.path / name for name in _BESIDE_THE_RESULT]


def _damage_to(path: Path, damages: Sequence[DamagedFile]) -> DamagedFile | None:
    return next((damage for damage in damages if damage.path == path), None)


def _keep_copy(path: Path, why: str) -> None:
    """Of a file that will be written anew, or of what lies in its place."""
    if path.is_file():
        copy_aside(path, why)
    elif os.path.lexists(path):
        set_aside(path, path, why)
    else:
        tell(f"{path} is damaged ({why}); written anew")


def _why(error: RequestError) -> str:
    """What is wrong with a file in a folder that is known to be bench's."""
    return error.why if isinstance(error, DamagedFile) else "it is not what was written"


def _plain(run: dict[str, Any]) -> dict[str, Any]:
    """As it is read back from JSON."""
    return parse(json_line(run).encode())
