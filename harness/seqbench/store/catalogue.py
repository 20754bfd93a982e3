"""All runs of a store at a glance."""

import fcntl
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqbench.errors import RequestError
from seqbench.store.run_folder import RunFolder

STATES = ("complete", "failed", "running", "unfinished", "damaged")

# Enough of a log's end to hold its last line of training.
_TAIL_BYTES = 256 * 1024


@dataclass(frozen=True)
class StoredRun:
    """What a store knows of a run.

    Attributes:
        folder: where it is.
        model, task: names, the model's with its ablation.
        hash: first 8 digits of its identity.
        state: one of `STATES`.
        step, steps: optimizer steps done (as far as the log tells) and asked for.
        detail: primary metric over the whole test set, reason of a failure, or what is damaged.
        bytes: size on disk.
    """

    folder: Path
    model: str
    task: str
    seed: int
    hash: str
    state: str
    step: int
    steps: int
    detail: str
    bytes: int


def stored_runs(runs: Path) -> Iterator[StoredRun]:
    """Every run below `runs`, in order of folders. Raises RequestError when there is no such folder."""
    if not runs.is_dir():
        raise RequestError(f"there is no folder {runs}; name the store with --runs")
    for path in sorted(runs.glob("*/*/run.json")):
        yield _describe(path.parent)


def remove_run(folder: Path) -> None:
    """Delete a run. Raises RequestError while a process is at work on it."""
    with RunFolder(folder).locked():
        # First what makes it a run, so that an interrupted removal leaves nothing that looks like one.
        (folder / "run.json").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=False)


def _describe(folder: Path) -> StoredRun:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    stored = RunFolder(folder)
    try:
        run, result = stored.read_run(), stored.read_result()
        assert run is not None
        identity = run["identity"]
        ablation = identity["model"]["ablation"]
        model = identity["model"]["name"] + (f" ({ablation})" if ablation else "")
        state, detail = _state(folder, result)
        return StoredRun(
            folder=folder,
            model=model,
            task=identity["task"]["name"],
            seed=identity["seed"],
            hash=run["hash"][:8],
            state=state,
            step=_last_step(folder),
            steps=identity["trainer"]["steps"],
            detail=detail,
            bytes=size,
        )
    except (RequestError, LookupError, TypeError) as error:
        return StoredRun(folder, "?", folder.parent.name, 0, "?", "damaged", 0, 0, str(error).splitlines()[0], size)


def _state(folder: Path, result: dict[str, Any] | None) -> tuple[str, str]:
    if result is None:
        return ("running" if _is_locked(folder) else "unfinished"), ""
    if result["status"] != "complete":
        return "failed", result["failure"]["reason"]
    metric = result["task"]["primary_metric"]
    overall = [
        entry["value"] for entry in result["measurements"] if entry["metric"] == metric and not entry["coordinates"]
    ]
    return "complete", f"{metric} {overall[0]:.4g}" if overall and overall[0] is not None else ""


def _is_locked(folder: Path) -> bool:
    try:
        with (folder / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _last_step(folder: Path) -> int:
    """Step of the log's last line of training, or 0."""
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row.get("kind") == "train":
            return int(row["step"])
    return 0
