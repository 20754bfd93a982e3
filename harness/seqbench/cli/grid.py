"""What `bench compare` and `bench run --ablations` do with their grid of runs."""

import io
import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from seqbench.cli.console import FILE_WIDTH, console
from seqbench.cli.options import EXIT_FAILED, EXIT_INTERRUPTED
from seqbench.comparability import require_comparable, with_hardware
from seqbench.comparison import GridRun
from seqbench.errors import RequestError
from seqbench.report.cumulative import (
    CumulativeCurve,
    ItemCurves,
    ReadCurves,
    cumulative_curves,
    plot_cumulative,
    read_item_curves,
    with_cumulative,
)
from seqbench.report.document import Document
from seqbench.report.item_scores import ItemScores, ReadItems, read_item_scores
from seqbench.report.measurements_csv import results_csv
from seqbench.report.plot import plot_results
from seqbench.report.results import Result, overall
from seqbench.runner import made_otherwise
from seqbench.scheduler import GridInterrupted, Place, run_grid
from seqbench.store.damage import set_aside
from seqbench.store.files import finite, remove_leftovers, write_json, write_text

Report = Callable[[Sequence[Result], ReadItems], Document]


def print_runs(grid: Sequence[GridRun]) -> None:
    """The runs of a grid, without running them."""
    for cell in grid:
        click.echo(f"{cell.plan.label}  seed {cell.plan.seed}  {cell.folder.path}")


def run_all(
    grid: Sequence[GridRun],
    runs: Path,
    retry_failed: bool,
    where: Sequence[Place],
    logs: Path,
    limit: float | None,
) -> list[Result]:
    """`run_grid`, which exits with EXIT_INTERRUPTED when the user stops it."""
    # A termination is passed on to the runs at work, as Ctrl-C is.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run_grid(grid, runs, retry_failed, where, logs, limit)
    except (GridInterrupted, KeyboardInterrupt):
        click.echo("bench: stopped; what is done is saved and the same command goes on from there", err=True)
        sys.exit(EXIT_INTERRUPTED)


def carry_out(
    grid: Sequence[GridRun],
    folder: Path,
    runs: Path,
    report: Report,
    retry_failed: bool,
    as_json: bool,
    where: Sequence[Place],
    limit: float | None = None,
) -> None:
    """Run what is missing of the grid, then store its results, tables and plot in `folder` and print them.

    As JSON, what is printed is the content of comparison.json. `report` lays the results out. Exits with EXIT_FAILED
    when a run failed, EXIT_INTERRUPTED when the user stopped it.
    """
    hashes = [cell.plan.run_hash for cell in grid]
    _make_folder(folder, hashes)
    results = run_all(grid, runs, retry_failed, where, folder / "logs", limit)
    _tell_made_otherwise(grid)
    require_comparable(grid, results)
    results = with_hardware(grid, results)
    curves = cumulative_curves(results, _curve_reader(grid))
    document = with_cumulative(report(results, _item_reader(grid)), results, curves)
    content = finite({"schema": 1, "runs": hashes, "results": results, **document.data})
    drawn = _store(folder, results, document, content, curves)
    remove_leftovers(folder)
    if as_json:
        click.echo(json.dumps(content, indent=2))
    else:
        console().print(document)
        click.echo(f"tables and data: {folder}" + (f"   plot: {drawn[0]}" if drawn else ""))
    if any(result["status"] != "complete" for result in results):
        sys.exit(EXIT_FAILED)


def _tell_made_otherwise(grid: Sequence[GridRun]) -> None:
    counts = Counter(difference for cell in grid for difference in made_otherwise(cell.plan, cell.folder))
    for difference, count in counts.items():
        click.echo(
            f"bench: {count} of {len(grid)} stored results were made with {difference}; another --runs runs them again",
            err=True,
        )


def _item_reader(grid: Sequence[GridRun]) -> ReadItems:
    cells = {cell.plan.run_hash: cell for cell in grid}

    def read(result: Result) -> ItemScores:
        cell = cells[result["hash"]]
        return read_item_scores(cell.plan.task, cell.folder.items, overall(result))

    return read


def _curve_reader(grid: Sequence[GridRun]) -> ReadCurves:
    cells = {cell.plan.run_hash: cell for cell in grid}

    def read(result: Result) -> ItemCurves | None:
        cell = cells[result["hash"]]
        return read_item_curves(cell.plan.task, cell.folder.items)

    return read


def _store(
    folder: Path,
    results: Sequence[Result],
    document: Document,
    content: Mapping[str, Any],
    curves: Sequence[CumulativeCurve],
) -> list[Path]:
    """Write all files of a comparison; returns the plots, none when there is nothing to draw."""
    write_json(folder / "comparison.json", content)
    recorder = Console(record=True, width=FILE_WIDTH, file=io.StringIO())
    recorder.print(document)
    write_text(folder / "table.txt", recorder.export_text())
    write_text(folder / "table.md", document.markdown())
    write_text(folder / "results.csv", results_csv(results))
    drawn = [path for path in (folder / "plot.png", folder / "plot.svg") if plot_results(results, path)]
    added_up = (folder / "cumulative.png", folder / "cumulative.svg")
    return drawn + [path for path in added_up if plot_cumulative(results, curves, path)]


def _make_folder(folder: Path, hashes: list[str]) -> None:
    """Create the folder. Raises RequestError when it cannot be written or holds something else."""
    try:
        if (folder / "run.json").exists() or _runs_of(folder / "comparison.json") not in (None, hashes):
            raise RequestError(f"{folder} holds another run or comparison; choose another folder with --output")
    except OSError as error:
        raise _cannot_write(folder, error) from error
    require_writable(folder)


def require_writable(folder: Path) -> None:
    """Make the folder. Raises RequestError when that, or writing into it, cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        # The same command may be at work a second time.
        (folder / ".writable").unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(folder: Path, error: OSError) -> RequestError:
    return RequestError(
        f"cannot write to {folder}: {error.strerror}\ngive a folder that you can write to with --output or --runs"
    )


def _runs_of(path: Path) -> object:
    """The runs that a stored comparison is made of, or None where there is none; a damaged one is set aside."""
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))["runs"]
    except (LookupError, TypeError):
        return "not a comparison"
    except ValueError as error:
        set_aside(path, path, str(error))
        return None
