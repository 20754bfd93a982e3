"""All runs of a store at a glance."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqbench.errors import RequestError
from seqbench.store.damage import DamagedFile
from seqbench.store.files import remove_folder, remove_leftovers
from seqbench.store.run_folder import RunFolder
from seqbench.training.budget import UNITS

STATES = ("complete", "failed", "running", "unfinished", "damaged", "foreign")

# Enough of a log's end to hold its last line of training.
_TAIL_BYTES = 256 * 1024


@dataclass(frozen=True)
class StoredRun:
    """What a store knows of a run.

    Attributes:
        folder: where it is.
        model, task: names, the model's with its ablation.
        hash: first 8 digits of its identity.
        state: one of `STATES`. Damaged: the run's own command mends it. Foreign: of another program, or of another
            version.
        step: optimizer steps done, as far as the log tells.
        progress: share of the training budget that is spent, 0 to 1, as far as the log tells.
        budget: what ends training, such as "2,500 steps".
        detail: primary metric over the whole test set, reason of a failure, or what is wrong.
        bytes: size on disk.
    """

    folder: Path
    model: str
    task: str
    seed: int
    hash: str
    state: str
    step: int
    progress: float
    budget: str
    detail: str
    bytes: int


def stored_runs(runs: Path) -> Iterator[StoredRun]:
    """Every run below `runs`, in order of folders. Raises RequestError when there is no such folder."""
    if not runs.is_dir():
        raise RequestError(f"there is no folder {runs}; name the store with --runs")
    for path in sorted(runs.glob("*/*/run.json")):
        run = None if path.parent.name.startswith(".") else _describe(path.parent)
        if run is not None:
            yield run


def remove_run(folder: Path) -> None:
    """Delete a run. Raises Busy while a process is at work on it."""
    stored = RunFolder(folder)
    with stored.locked():
        remove_leftovers(folder.parent, folder.name)
        remove_folder(folder)


def last_training_line(folder: Path) -> dict[str, Any] | None:
    """The last line of training in a run's log, or None."""
    try:
        with RunFolder(folder).metrics.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        # The first line here may be cut off, the last one is perhaps being written.
        with suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and row.get("kind") == "train":
                return row
    return None


def _describe(folder: Path) -> StoredRun | None:
    """What is known of a run, or None when it is removed at this moment."""
    try:
        run = RunFolder(folder).read_run()
        return None if run is None else _read(folder, run)
    except DamagedFile as error:
        return _unreadable(folder, "damaged", str(error))
    except RequestError as error:
        return _unreadable(folder, "foreign", str(error))
    except (LookupError, TypeError, AttributeError, ValueError):
        return _unreadable(folder, "foreign", "its files are not as this version of bench writes them")


def _read(folder: Path, run: dict[str, Any]) -> StoredRun:
    identity = run["identity"]
    ablation, budget = identity["model"]["ablation"], identity["budget"]
    state, detail = _state(folder)
    # What was tested alone has no line of training; its model has been trained for the whole budget elsewhere.
    line = last_training_line(folder) or {"step": 0, "progress": 1.0 if state == "complete" else 0.0}
    return StoredRun(
        folder=folder,
        model=identity["model"]["name"] + (f" ({ablation})" if ablation else ""),
        task=identity["task"]["name"],
        seed=identity["seed"],
        hash=run["hash"][:8],
        state=state,
        step=line["step"],
        progress=line["progress"],
        budget=f"{budget['target']:,} {UNITS[budget['kind']]}",
        detail=detail,
        bytes=_size(folder),
    )


def _state(folder: Path) -> tuple[str, str]:
    stored = RunFolder(folder)
    damage = next(stored.damages_to_result(), None)
    if damage is not None:
        return "damaged", _first_line(str(damage))
    result = stored.read_result()
    if result is None:
        return ("running" if stored.is_locked() else "unfinished"), ""
    if result["status"] != "complete":
        return "failed", result["failure"]["reason"]
    metric = result["task"]["primary_metric"]
    overall = [
        entry["value"] for entry in result["measurements"] if entry["metric"] == metric and not entry["coordinates"]
    ]
    return "complete", f"{metric} {overall[0]:.4g}" if overall and overall[0] is not None else ""


def _unreadable(folder: Path, state: str, why: str) -> StoredRun:
    return StoredRun(folder, "?", folder.parent.name, 0, "?", state, 0, 0.0, "?", _first_line(why), _size(folder))


def _first_line(text: str) -> str:
    return text.splitlines()[0]


def _size(folder: Path) -> int:
    """Bytes of all files; what disappears while a run is at work counts for nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total
