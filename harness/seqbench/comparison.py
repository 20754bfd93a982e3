"""A grid of runs, each in a process of its own."""

import dataclasses
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqbench.errors import RequestError
from seqbench.plan import RunPlan, ablation_names, resolve, slug
from seqbench.registry import find_model
from seqbench.request import RunRequest
from seqbench.runner import record_failure, stored_result
from seqbench.store.run_folder import RunFolder

_EXIT_INTERRUPTED = 130


class GridInterrupted(Exception):
    """The user stopped the grid; finished runs are stored and the present one is in a checkpoint."""


@dataclass(frozen=True)
class GridRun:
    """One cell of the grid."""

    request: RunRequest
    plan: RunPlan
    folder: RunFolder


def plan_ablations(request: RunRequest, names: Sequence[str], runs: Path) -> list[GridRun]:
    """The run of the whole model, and one for each of its ablations in `names`; "all" stands for all there are."""
    if list(names) == ["all"]:
        names = ablation_names(find_model(request.model))
        if not names:
            raise RequestError(f"model {request.model} has no ablations")
    grid = [_grid_run(dataclasses.replace(request, ablation=name), runs) for name in (None, *names)]
    if len({cell.plan.run_hash for cell in grid}) < len(grid):
        raise RequestError(f"--ablations names one of {', '.join(names)} more than once")
    return grid


def plan_grid(request: RunRequest, models: Sequence[str], seeds: int, runs: Path) -> list[GridRun]:
    """All runs of a comparison, seed by seed, so that every model has a result early.

    `request` gives everything but model and seed. Changes whose key is "<name of a compared model>.<field>" go to
    that model alone. Raises RequestError for the first thing that is wrong.
    """
    repeated = sorted({model for model in models if list(models).count(model) > 1})
    if repeated:
        raise RequestError(f"--models names {', '.join(repeated)} more than once")
    grid = []
    for seed in range(request.seed, request.seed + seeds):
        for model in models:
            changes = _changes_for(model, models, request.changes)
            grid.append(_grid_run(dataclasses.replace(request, model=model, seed=seed, changes=changes), runs))
    return grid


def grid_folder(grid: Sequence[GridRun], runs: Path, kind: str) -> Path:
    """Default folder of the table and plot of a "comparison" or of "ablations": its name follows from its runs."""
    digest = hashlib.sha256(json.dumps([cell.plan.run_hash for cell in grid]).encode()).hexdigest()
    return runs / slug(grid[0].plan.task_name) / f"{kind}-{digest[:8]}"


def run_grid(
    grid: Sequence[GridRun], runs: Path, retry_failed: bool, announce: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Results of all runs: stored ones as they are, missing ones run one after the other in child processes.

    A run that fails, is killed or cannot be started becomes a failed result, and the rest goes on. Raises
    GridInterrupted when the user stopped it.
    """
    results = []
    for number, cell in enumerate(grid, start=1):
        name = f"[{number}/{len(grid)}] {cell.plan.label} seed {cell.plan.seed}"
        result = stored_result(cell.plan, cell.folder)
        if result is not None and not (retry_failed and result["status"] == "failed"):
            announce(f"{name}: done before")
        else:
            announce(f"{name}: {cell.folder.path}")
            result = _run_child(cell, runs, retry_failed)
        results.append(result)
    return results


def compare_data_order(results: Sequence[Mapping[str, Any]]) -> None:
    """Raise RequestError unless all complete runs of a seed with equal steps saw the same batches in the same order."""
    seen: dict[tuple[int, int], Mapping[str, Any]] = {}
    for result in results:
        if result["status"] != "complete":
            continue
        key = result["seed"], result["budgets"][0]["achieved"]
        other = seen.setdefault(key, result)
        if other["data_order_sha256"] != result["data_order_sha256"]:
            raise RequestError(
                f"{result['model']['name']} and {other['model']['name']} saw different training data at seed {key[0]};"
                " their results cannot be compared"
            )


def _grid_run(request: RunRequest, runs: Path) -> GridRun:
    plan = resolve(request)
    return GridRun(request, plan, RunFolder(runs / plan.folder_name))


def _changes_for(model: str, models: Sequence[str], changes: Mapping[str, str]) -> dict[str, str]:
    own: dict[str, str] = {}
    for key, text in changes.items():
        owner = next((name for name in models if key.startswith(f"{name}.")), None)
        if owner is None:
            own[key] = text
        elif owner == model:
            own["model." + key.removeprefix(f"{owner}.")] = text
    return own


def _run_child(cell: GridRun, runs: Path, retry_failed: bool) -> dict[str, Any]:
    process = subprocess.Popen(_command(cell, runs, retry_failed), stdout=subprocess.PIPE, text=True)
    try:
        output, _ = process.communicate()
    except KeyboardInterrupt:
        # A terminal's Ctrl-C reaches the child too; a signal to this process alone is passed on.
        process.send_signal(signal.SIGINT)
        process.communicate()
        raise GridInterrupted from None
    if process.returncode == _EXIT_INTERRUPTED:
        raise GridInterrupted
    result = stored_result(cell.plan, cell.folder)
    if result is not None:
        return result
    return record_failure(cell.plan, cell.folder, *_explain(process.returncode, output))


def _command(cell: GridRun, runs: Path, retry_failed: bool) -> list[str]:
    request = cell.request
    command = [sys.executable, "-m", "seqbench.cli", "run", "--json", "--model", request.model, "--task", request.task]
    command += ["--seed", str(request.seed), "--device", request.device, "--precision", request.precision]
    command += ["--runs", str(runs)]
    for preset in request.presets:
        command += ["--preset", preset]
    command += ["--ablate", request.ablation] if request.ablation else []
    command += ["--init", request.init] if request.init else []
    for key, text in request.changes.items():
        command += ["--set", f"{key}={text}"]
    return [*command, "--retry-failed"] if retry_failed else command


def _explain(code: int, output: str) -> tuple[str, str]:
    """Reason and message for a child that ended without a result."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; the system may have run out of memory" if name == "SIGKILL" else ""
        return "killed", f"the process was ended by {name}{hint}"
    try:
        told = json.loads(output)
        return told["status"], told["message"]
    except (ValueError, KeyError, TypeError):
        return "error", f"the process ended with exit code {code} and no result"
