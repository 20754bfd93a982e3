"""All runs of a store at a glance."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqbench.errors import RequestError
from seqbench.store import names
from seqbench.store.attempts import attempts, in_words
from seqbench.store.damage import DamagedFile, ForeignFile, tell
from seqbench.store.elsewhere import remembered
from seqbench.store.forms import BUDGET_UNITS, LOG_LINE
from seqbench.store.log import missing_steps
from seqbench.store.reader import open_file, parse
from seqbench.store.removal import finish_removals
from seqbench.store.run_folder import RunFolder
from seqbench.store.sealed import has_seal, unsealed

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
    """Every run of the store `runs`. Raises RequestError when there is no such folder.

    Removals that were killed are finished on the way.
    """
    for folder in run_folders(runs):
        run = _describe(folder)
        if run is not None:
            yield run


def run_folders(runs: Path) -> Iterator[Path]:
    """What may be folders of runs: those below `runs`, in order, then those that `--output` has put elsewhere.

    Raises RequestError when there is no folder `runs`.
    """
    if not runs.is_dir():
        raise RequestError(f"there is no folder {runs}; name the store with --runs")
    for place in _folders(runs):
        finish_removals(place)
        yield from _folders(place)
    yield from remembered(runs)


def last_training_line(folder: Path) -> dict[str, Any] | None:
    """The last line of training in a run's log that is as it was written, or None; the log may be growing."""
    try:
        with open_file(RunFolder(folder).metrics) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().splitlines()
    except (OSError, RequestError):
        return None
    sealed = any(map(has_seal, lines))
    for line in reversed(lines):
        # The first line here may be cut off, the last one is perhaps being written.
        with suppress(ValueError):
            row = unsealed(line) if sealed else parse(line)
            LOG_LINE(row)
            if row["kind"] == "train":
                return row
    return None


def _folders(place: Path) -> list[Path]:
    """The folders in a place that may be looked into, hidden ones left out."""
    try:
        return sorted(entry for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        tell(f"{place} cannot be looked into: {error.strerror}")
        return []


def _describe(folder: Path) -> StoredRun | None:
    """What is known of a run, or None for another kind of folder, and for a run that is removed at this moment."""
    stored = RunFolder(folder)
    try:
        run = stored.read_run()
        if run is not None:
            return _read(folder, run)
        if not folder.is_dir() or stored.named_by() is None:
            return None
        return _unreadable(folder, "damaged", f"{folder / names.RUN} cannot be read: it is missing")
    except ForeignFile as error:
        return _unreadable(folder, "foreign" if stored.named_by() is None else "damaged", str(error))
    except DamagedFile as error:
        return _unreadable(folder, "damaged", str(error))
    except RequestError as error:
        return _unreadable(folder, "foreign", str(error))
    except (LookupError, TypeError, AttributeError, ValueError):
        return _unreadable(folder, "foreign", "its files are not as this version of bench writes them")


def _read(folder: Path, run: dict[str, Any]) -> StoredRun:
    identity = run["identity"]
    ablation, budget = identity["model"].get("ablation"), identity["budget"]
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
        budget=f"{budget['target']:,} {BUDGET_UNITS[budget['kind']]}",
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
        return _unfinished(stored)
    if result["status"] != "complete":
        return "failed", result["failure"]["reason"]
    metric = result["task"]["primary_metric"]
    values = [
        entry["value"] for entry in result["measurements"] if entry["metric"] == metric and not entry["coordinates"]
    ]
    mark = {"sound": "", "unsound": " (UNSOUND)"}.get(result.get("soundness", {}).get("state", ""), " (UNCHECKED)")
    told = [f"{metric} {values[0]:.4g}{mark}"] if values and values[0] is not None else []
    return "complete", "; ".join([*told, *stored.remarks()])


def _unfinished(stored: RunFolder) -> tuple[str, str]:
    if stored.is_locked():
        # The log is being written at this moment.
        return "running", ""
    try:
        rows = stored.read_log()
    except DamagedFile as damage:
        return "damaged", _first_line(str(damage))
    # The log is never behind a checkpoint.
    numbers = (path.name.removeprefix("step-") for path in stored.checkpoints.glob("step-*") if path.is_dir())
    step = max((int(digits) for digits in numbers if digits.isdecimal()), default=0)
    missing = missing_steps(rows, step)
    if missing:
        return "damaged", f"{stored.metrics} lacks lines of {missing} of {step} steps"
    return "unfinished", in_words(attempts(stored))


def _unreadable(folder: Path, state: str, why: str) -> StoredRun:
    known = (RunFolder(folder).named_by() or "?")[:8]
    return StoredRun(folder, "?", folder.parent.name, 0, known, state, 0, 0.0, "?", _first_line(why), _size(folder))


def _first_line(text: str) -> str:
    return text.splitlines()[0]


def _size(folder: Path) -> int:
    """Bytes of all files; what disappears while a run is at work counts for nothing."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total
