"""Finished runs in a store, made in this process: no child process has to import torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqbench.comparing.grid import grid_run, plan_grid
from seqbench.planning.request import RunRequest
from seqbench.running.runner import execute


def store_trials(requests: Sequence[RunRequest], runs: Path) -> list[dict[str, Any]]:
    """Results of these runs, which are in the store afterwards."""
    cells = [grid_run(request, runs) for request in requests]
    return [execute(cell.plan, cell.folder, runs) for cell in cells]


def store_grid(
    requests: Sequence[RunRequest], seeds: int, runs: Path, found: Mapping[str, Mapping[str, str]] | None = None
) -> list[dict[str, Any]]:
    """Results of all runs of a comparison with these columns, which are in the store afterwards."""
    return [execute(cell.plan, cell.folder, runs) for cell in plan_grid(requests, seeds, runs, found)]
