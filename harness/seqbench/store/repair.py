"""A run's folder brought into a state to go on from, after whatever has happened to it."""

import json
from contextlib import suppress
from typing import Any

from seqbench.errors import RequestError
from seqbench.store.damage import DamagedFile, copy_aside, set_aside
from seqbench.store.files import json_line, remove_leftovers, sort_json_lines, write_json, write_json_lines
from seqbench.store.run_folder import RunFolder, is_log_line


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
    if not _belongs_to(folder, run):
        return
    for place in (folder.path, folder.checkpoints, folder.model):
        remove_leftovers(place)
    remove_leftovers(folder.path.parent, folder.path.name)
    _mend_request(folder, run)
    _mend_environment(folder)
    _mend_result(folder)
    _mend_log(folder)


def _belongs_to(folder: RunFolder, run: dict[str, Any]) -> bool:
    told_twice = _told_twice(folder) == run["hash"]
    try:
        stored = folder.read_run()
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


def _mend_request(folder: RunFolder, run: dict[str, Any]) -> None:
    path = folder.path / "run.json"
    try:
        stored = folder.read_run()
        sound = stored is None or (stored["hash"], stored["identity"]) == (run["hash"], _plain(run)["identity"])
        why = "hash and identity do not belong together"
    except RequestError as error:
        stored, sound, why = None, False, _why(error)
    if not sound:
        copy_aside(path, why)
    if not sound or (stored is None and _told_twice(folder) == run["hash"]):
        write_json(path, run)


def _mend_environment(folder: RunFolder) -> None:
    path = folder.path / "environment.json"
    try:
        folder.read_environment()
    except RequestError as error:
        set_aside(path, path, _why(error))


def _mend_result(folder: RunFolder) -> None:
    damages = list(folder.damages())
    if not damages:
        try:
            folder.read_result()
        except DamagedFile as error:
            damages = [error]
    if damages and "result.json" not in [damage.path.name for damage in damages]:
        # First of all: without its result the run is known to be unfinished, whatever happens here.
        folder.remove_result()
    for damage in damages:
        # In model/ everything is written at once, so it goes as a whole.
        top = folder.path / damage.path.relative_to(folder.path).parts[0]
        if top.exists():
            set_aside(top, damage.path, damage.why)


def _mend_log(folder: RunFolder) -> None:
    """Take out lines that cannot be read. No training is repeated for them: no other file rests on them."""
    if not folder.metrics.exists():
        return
    rows, unreadable = sort_json_lines(folder.metrics, is_log_line)
    if unreadable:
        copy_aside(folder.metrics, f"line {unreadable[0]} cannot be read; left out")
        write_json_lines(folder.metrics, rows)


def _why(error: RequestError) -> str:
    """What is wrong with a file in a folder that is known to be bench's."""
    return error.why if isinstance(error, DamagedFile) else "it is not what was written"


def _plain(run: dict[str, Any]) -> dict[str, Any]:
    """As it is read back from JSON."""
    return json.loads(json_line(run))
