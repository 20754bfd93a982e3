"""A grid of runs: which they are, and whether their results may be compared."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seqbench.errors import RequestError
from seqbench.planning.plan import RunPlan, ablation_names, resolve, slug
from seqbench.planning.request import RunRequest
from seqbench.plugins.registry import find_model
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


def columns(
    request: RunRequest,
    models: Sequence[str],
    ablations: Sequence[tuple[str, str]] = (),
    checkpoints: Mapping[str, str] | None = None,
) -> list[RunRequest]:
    """The request of each column of a comparison: every model, and beside it what is left of it without a part.

    `request` gives everything but the model. Changes whose key is "<name of a compared model>.<field>" go to that
    model alone. `ablations` are pairs of a model and the name of one of its ablations, `checkpoints` what a model
    starts from. Raises RequestError for a model that is named twice.
    """
    repeated = sorted({model for model in models if list(models).count(model) > 1})
    if repeated:
        raise RequestError(f"--models names {', '.join(repeated)} more than once")
    found = []
    for model in models:
        changes = _changes_for(model, models, request.changes)
        whole = dataclasses.replace(request, model=model, changes=changes, init=(checkpoints or {}).get(model))
        found.append(whole)
        found += [dataclasses.replace(whole, ablation=name) for owner, name in ablations if owner == model]
    return found


def plan_grid(
    requests: Sequence[RunRequest],
    seeds: int,
    runs: Path,
    found: Mapping[str, Mapping[str, str]] | None = None,
) -> list[GridRun]:
    """All runs of a comparison with these columns, seed by seed, so that every model has a result early.

    `found` holds further changes by model, those that a search chose for it and for what is left of it without a
    part. Raises RequestError for the first thing that is wrong.
    """
    grid = []
    for number in range(seeds):
        for request in requests:
            changes = {**request.changes, **(found or {}).get(request.model, {})}
            grid.append(grid_run(dataclasses.replace(request, seed=request.seed + number, changes=changes), runs))
    labels = [cell.plan.label for cell in grid[: len(requests)]]
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise RequestError(f"--ablate asks for {', '.join(repeated)} more than once")
    return grid


def grid_folder(grid: Sequence[GridRun], runs: Path, kind: str) -> Path:
    """Default folder of the table and plot of a "comparison" or of "ablations": its name follows from its runs."""
    digest = hashlib.sha256(json.dumps([cell.plan.run_hash for cell in grid]).encode()).hexdigest()
    return runs / slug(grid[0].plan.task_name) / f"{kind}-{digest[:8]}"


def grid_run(request: RunRequest, runs: Path) -> GridRun:
    """The cell of one request in the store `runs`."""
    plan = resolve(request)
    return GridRun(request, plan, RunFolder(runs / plan.folder_name))


def _changes_for(model: str, models: Sequence[str], changes: Mapping[str, str]) -> dict[str, str]:
    """The changes that concern `model` among `models`, keyed as for a run of its own.

    Raises RequestError for a field of the model that is named for it and for all.
    """
    own: dict[str, str] = {}
    for key, text in changes.items():
        owner = next((name for name in models if key.startswith(f"{name}.")), None)
        if owner is None or owner == model:
            field = key if owner is None else "model." + key.removeprefix(f"{owner}.")
            if field in own:
                raise RequestError(
                    f"--set {model}.{field.removeprefix('model.')} and {field} are the same field of {model}; give it"
                    " once"
                )
            own[field] = text
    return own
