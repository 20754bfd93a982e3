"""What `bench compare` and `bench run --ablations` do with their grid of runs."""

import io
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console, RenderableType

from seqbench.cli.options import EXIT_FAILED, EXIT_INTERRUPTED
from seqbench.comparison import GridInterrupted, GridRun, compare_data_order, run_grid
from seqbench.errors import RequestError
from seqbench.report.plot import plot_results
from seqbench.store.files import write_json, write_text

Report = Callable[[Sequence[dict[str, Any]]], RenderableType]


def print_grid(grid: Sequence[GridRun]) -> None:
    """The runs of a grid, without running them."""
    for cell in grid:
        click.echo(f"{cell.plan.label}  seed {cell.plan.seed}  {cell.folder.path}")
    click.echo("`bench run --dry-run` with one of the models prints its sizes and an estimate of its time")


def carry_out(
    grid: Sequence[GridRun], folder: Path, runs: Path, report: Report, retry_failed: bool, as_json: bool
) -> None:
    """Run what is missing of the grid, then store its results, table and plot in `folder` and print them.

    `report` lays the results out. Exits with EXIT_FAILED when a run failed, EXIT_INTERRUPTED when the user stopped it.
    """
    # A termination is passed on to the run at work, as Ctrl-C is.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    hashes = [cell.plan.run_hash for cell in grid]
    _make_folder(folder, hashes)
    try:
        results = run_grid(grid, runs, retry_failed, lambda line: click.echo(line, err=True))
    except (GridInterrupted, KeyboardInterrupt):
        click.echo("bench: stopped; what is done is saved and the same command goes on from there", err=True)
        sys.exit(EXIT_INTERRUPTED)
    compare_data_order(results)
    write_json(folder / "comparison.json", {"schema": 1, "runs": hashes, "results": results})
    recorder = Console(record=True, width=160, file=io.StringIO())
    recorder.print(report(results))
    write_text(folder / "table.txt", recorder.export_text())
    drawn = [name for name in ("plot.png", "plot.svg") if plot_results(results, folder / name)]
    if as_json:
        click.echo(json.dumps(results, indent=2))
    else:
        Console().print(report(results))
        click.echo(f"table and data: {folder}" + (f"   plot: {folder / drawn[0]}" if drawn else ""))
    if any(result["status"] != "complete" for result in results):
        sys.exit(EXIT_FAILED)


def _make_folder(folder: Path, hashes: list[str]) -> None:
    """Create the folder. Raises RequestError when it cannot be written or holds something else."""
    try:
        if (folder / "run.json").exists() or _runs_of(folder / "comparison.json") not in (None, hashes):
            raise RequestError(f"{folder} holds another run or comparison; choose another folder with --output")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise RequestError(
            f"cannot write to {folder}: {error.strerror}\ngive a folder that you can write to with --output or --runs"
        ) from error


def _runs_of(path: Path) -> object:
    """The runs that a stored comparison is made of, or None where there is none."""
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))["runs"]
    except (ValueError, LookupError, TypeError):
        return "not a comparison"
