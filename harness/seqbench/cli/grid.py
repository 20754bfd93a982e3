"""What `bench compare` and `bench run --ablations` do with their grid of runs."""

import errno
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from seqbench.cli.console import FILE_WIDTH, console, say
from seqbench.comparing.comparability import require_comparable, with_hardware
from seqbench.comparing.estimate import missing
from seqbench.comparing.grid import GridRun
from seqbench.comparing.scheduler import Place, run_grid
from seqbench.errors import EXIT_FAILED, Circumstance, RequestError
from seqbench.evaluating.measured import overall
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
from seqbench.report.results import Result
from seqbench.report.run_plots import draw_what_is_missing
from seqbench.running.edited_source import edited_since, what_to_do
from seqbench.running.rounding import made_otherwise
from seqbench.store.comparison_file import compared_runs, write_comparison
from seqbench.store.files import finite, json_text, remove_leftovers, write_text
from seqbench.store.sealed import sealed_document
from seqbench.surroundings.circumstances import circumstance_of, in_one_line
from seqbench.surroundings.stopping import keeping
from seqbench.training.checkpoint import list_checkpoints

Report = Callable[[Sequence[Result], ReadItems], Document]

# Of a place that cannot be written to, which is no reason not to show what is stored.
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class Destination:
    """Where a comparison's tables and plots go, and whether somebody has asked for that very folder."""

    folder: Path
    is_asked_for: bool


def print_runs(grid: Sequence[GridRun], as_json: bool, known: Mapping[str, Any] | None = None) -> None:
    """The runs of a grid, without running them; as JSON, with what else is `known` of the plan."""
    if as_json:
        runs = [
            {
                "model": cell.plan.label,
                "seed": cell.plan.seed,
                "hash": cell.plan.run_hash,
                "folder": str(cell.folder.path),
            }
            for cell in grid
        ]
        click.echo(json.dumps(finite({**(known or {}), "runs": runs}), indent=2))
        return
    for cell in grid:
        say(f"{cell.plan.label}  seed {cell.plan.seed}  {cell.folder.path}")


def saying_what_is_done(grid: Sequence[GridRun]) -> AbstractContextManager[None]:
    """Inside, whatever stops the command has it say how many runs are done and saved."""
    return keeping(lambda: _kept(grid))


def _kept(grid: Sequence[GridRun]) -> str:
    """What is saved of a grid, in words."""
    unfinished = [cell for cell in grid if cell.folder.finished_result(cell.plan.run_hash) is None]
    begun = sum(bool(list_checkpoints(cell.folder.checkpoints)) for cell in unfinished)
    done = f"with {len(grid) - len(unfinished)} of {len(grid)} runs done"
    return f"{done} and {begun} saved in a checkpoint" if begun else done


def carry_out(
    grid: Sequence[GridRun],
    destination: Destination,
    runs: Path,
    report: Report,
    retry_failed: bool,
    as_json: bool,
    where: Sequence[Place],
    limit: float | None = None,
) -> None:
    """Run what is missing of the grid, then store its results, tables and plot at `destination` and print them.

    As JSON, what is printed is the content of comparison.json. `report` lays the results out. What is stored is shown
    where nothing can be written, too. Exits with EXIT_FAILED when a run failed, is unfinished, or the tables found no
    room.
    """
    folder, hashes = destination.folder, [cell.plan.run_hash for cell in grid]
    needs_no_writing = not destination.is_asked_for and not missing(grid, runs, retry_failed, limit)
    _make_folder(folder, hashes, needs_no_writing)
    with saying_what_is_done(grid):
        results = run_grid(grid, runs, retry_failed, where, folder / "logs", limit)
        _show(grid, results, folder, report, as_json)


def _show(grid: Sequence[GridRun], results: list[Result], folder: Path, report: Report, as_json: bool) -> None:
    hashes = [cell.plan.run_hash for cell in grid]
    _tell_made_otherwise(grid)
    for result in results:
        for difference in edited_since(result):
            say(what_to_do(difference, result["hash"]), err=True)
    require_comparable(grid, results)
    results = with_hardware(grid, results)
    curves = cumulative_curves(results, _curve_reader(grid))
    document = with_cumulative(report(results, _item_reader(grid)), results, curves)
    content = sealed_document(finite({"schema": 1, "runs": hashes, "results": results, **document.data}))
    drawn, problem = _try_to_store(folder, results, document, content, curves)
    if as_json:
        click.echo(json.dumps(content, indent=2))
    else:
        console().print(document)
        if problem is None:
            say(f"tables and data: {folder}" + (f"   plot: {drawn[0]}" if drawn else ""))
    for cell in grid:
        draw_what_is_missing(cell.folder, cell.plan)
    if problem is not None:
        say(
            f"bench: tables and plots cannot be written to {folder} ({in_one_line(problem)}); the results are stored,"
            " and the same command writes them when that has changed",
            err=True,
        )
    if any(result["status"] != "complete" for result in results):
        sys.exit(EXIT_FAILED)
    if problem is not None and problem.errno not in _READ_ONLY:
        sys.exit(EXIT_FAILED)


def _try_to_store(
    folder: Path,
    results: Sequence[Result],
    document: Document,
    content: Mapping[str, Any],
    curves: Sequence[CumulativeCurve],
) -> tuple[list[Path], OSError | None]:
    """The plots that were drawn, and what kept the files from being written; the results do not depend on them."""
    try:
        # Somebody may have removed it since.
        folder.mkdir(parents=True, exist_ok=True)
        drawn = _store(folder, results, document, content, curves)
        remove_leftovers(folder)
        return drawn, None
    except OSError as error:
        if error.errno in _READ_ONLY and _reads(folder / "comparison.json", json_text(content)):
            # Everything is there from before.
            return [path for path in (folder / "plot.png", folder / "plot.svg") if path.exists()], None
        return [], error


def _reads(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, ValueError):
        return False


def _tell_made_otherwise(grid: Sequence[GridRun]) -> None:
    counts = Counter(difference for cell in grid for difference in made_otherwise(cell.plan, cell.folder))
    for difference, count in counts.items():
        say(
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
    write_comparison(folder / "comparison.json", content)
    recorder = Console(record=True, width=FILE_WIDTH, file=io.StringIO())
    recorder.print(document)
    write_text(folder / "table.txt", recorder.export_text())
    write_text(folder / "table.md", document.markdown())
    write_text(folder / "results.csv", results_csv(results))
    drawn = [path for path in (folder / "plot.png", folder / "plot.svg") if plot_results(results, path)]
    added_up = (folder / "cumulative.png", folder / "cumulative.svg")
    return drawn + [path for path in added_up if plot_cumulative(results, curves, path)]


def _make_folder(folder: Path, hashes: list[str], needs_no_writing: bool) -> None:
    """Create the folder. Raises RequestError when it holds something else, or has to be written and cannot be."""
    try:
        stored = compared_runs(folder / "comparison.json", hashes)
        if (folder / "run.json").exists() or stored not in (None, hashes):
            raise RequestError(f"{folder} holds another run or comparison; choose another folder with --output")
    except OSError as error:
        raise _cannot_write(folder, error) from error
    try:
        require_writable(folder)
    except RequestError:
        if not needs_no_writing and stored != hashes:
            raise


def require_writable(folder: Path) -> None:
    """Make the folder.

    Raises RequestError when that, or writing into it, cannot be done; Circumstance when there is no room now.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        # The same command may be at work a second time.
        (folder / ".writable").unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(folder: Path, error: OSError) -> RequestError | Circumstance:
    if error.errno != errno.EROFS and (circumstance := circumstance_of(error)) is not None:
        return circumstance
    return RequestError(
        f"cannot write to {folder}: {error.strerror}\ngive a folder that you can write to with --output or --runs"
    )
