"""A grid of runs: which they are, and whether their results may be compared."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seqbench.errors import RequestError
from seqbench.plan import RunPlan, ablation_names, resolve, slug
from seqbench.registry import find_model
from seqbench.request import RunRequest
from seqbench.store.run_folder import RunFolder


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
    grid = [grid_run(dataclasses.replace(request, ablation=name), runs) for name in (None, *names)]
    if len({cell.plan.run_hash for cell in grid}) < len(grid):
        raise RequestError(f"--ablations names one of {', '.join(names)} more than once")
    return grid


def plan_grid(
    request: RunRequest,
    models: Sequence[str],
    seeds: int,
    runs: Path,
    found: Mapping[str, Mapping[str, str]] | None = None,
) -> list[GridRun]:
    """All runs of a comparison, seed by seed, so that every model has a result early.

    `request` gives everything but model and seed. Changes whose key is "<name of a compared model>.<field>" go to
    that model alone; `found` holds further changes by model, those that a search chose. Raises RequestError for the
    first thing that is wrong.
    """
    repeated = sorted({model for model in models if list(models).count(model) > 1})
    if repeated:
        raise RequestError(f"--models names {', '.join(repeated)} more than once")
    grid = []
    for seed in range(request.seed, request.seed + seeds):
        for model in models:
            changes = {**changes_for(model, models, request.changes), **(found or {}).get(model, {})}
            grid.append(grid_run(dataclasses.replace(request, model=model, seed=seed, changes=changes), runs))
    return grid


def grid_folder(grid: Sequence[GridRun], runs: Path, kind: str) -> Path:
    """Default folder of the table and plot of a "comparison" or of "ablations": its name follows from its runs."""
    digest = hashlib.sha256(json.dumps([cell.plan.run_hash for cell in grid]).encode()).hexdigest()
    return runs / slug(grid[0].plan.task_name) / f"{kind}-{digest[:8]}"


def grid_run(request: RunRequest, runs: Path) -> GridRun:
    """The cell of one request in the store `runs`."""
    plan = resolve(request)
    return GridRun(request, plan, RunFolder(runs / plan.folder_name))


def changes_for(model: str, models: Sequence[str], changes: Mapping[str, str]) -> dict[str, str]:
    """The changes that concern `model` among `models`, keyed as for a run of its own."""
    own: dict[str, str] = {}
    for key, text in changes.items():
        owner = next((name for name in models if key.startswith(f"{name}.")), None)
        if owner is None:
            own[key] = text
        elif owner == model:
            own["model." + key.removeprefix(f"{owner}.")] = text
    return own
