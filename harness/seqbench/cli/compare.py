"""`bench compare`: several models on one task, over seeds."""

import io
import json
import signal
import sys
from pathlib import Path

import click
from rich.console import Console

from seqbench.cli.options import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    friendly_errors,
    parse_changes,
    run_options,
)
from seqbench.errors import RequestError
from seqbench.request import RunRequest


@click.command()
@click.option("--models", required=True, help="Models, separated by commas.")
@run_options
@click.option("--seeds", type=click.IntRange(1, 1000), default=3, show_default=True, help="Number of seeds.")
@click.option(
    "--first-seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="The first of them."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder of the comparison's table and plot.  [default: RUNS/<task>/comparison-<hash>]",
)
@friendly_errors
def compare(
    models: str,
    task: str,
    presets: tuple[str, ...],
    changes: tuple[str, ...],
    device: str,
    precision: str,
    runs: Path,
    dry_run: bool,
    as_json: bool,
    retry_failed: bool,
    seeds: int,
    first_seed: int,
    output: Path | None,
) -> None:
    """Train and test several models on the same data, and print mean and spread per model.

    Runs that are stored already are not repeated; a model that fails is reported and the others go on. `--set
    MODEL.FIELD=VALUE` changes a field of one of the compared models.
    """
    from seqbench.comparison import GridInterrupted, compare_data_order, grid_folder, plan_grid, run_grid
    from seqbench.report.plot import plot_results
    from seqbench.report.table import comparison_report
    from seqbench.store.files import write_json, write_text

    # A termination is passed on to the run at work, as Ctrl-C is.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = [name.strip() for name in models.split(",") if name.strip()]
    if not names:
        raise RequestError("--models takes names separated by commas; `bench list models` shows what is installed")
    request = RunRequest("", task, presets, parse_changes(changes), None, first_seed, device, precision)
    grid = plan_grid(request, names, seeds, runs)
    folder = output or grid_folder(grid, runs)
    if dry_run:
        for cell in grid:
            click.echo(f"{cell.plan.label}  seed {cell.plan.seed}  {cell.folder.path}")
        click.echo("`bench run --dry-run` with one of the models prints its sizes and an estimate of its time")
        return
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
    recorder.print(comparison_report(results))
    write_text(folder / "table.txt", recorder.export_text())
    drawn = [name for name in ("plot.png", "plot.svg") if plot_results(results, folder / name)]
    if as_json:
        click.echo(json.dumps(results, indent=2))
    else:
        Console().print(comparison_report(results))
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
