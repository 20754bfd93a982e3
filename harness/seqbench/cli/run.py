"""`bench run`: one model on one task."""

import json
import sys
from pathlib import Path

import click
from rich.console import Console

from seqbench.cli.options import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    friendly_errors,
    parse_changes,
    parse_names,
    run_options,
)
from seqbench.errors import RequestError
from seqbench.request import RunRequest


@click.command()
@click.option("--model", required=True, help="Model: a name from `bench list models`, or package.module:Class.")
@run_options
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Weights and data order.")
@click.option(
    "--ablate",
    "ablation",
    metavar="NAME",
    help="One of the model's ablations (`bench show MODEL` lists them); NAME@eval tests the model that was trained"
    " whole.",
)
@click.option(
    "--ablations",
    metavar="NAMES",
    help="Run the whole model and these ablations, separated by commas, or `all`, and print one table.",
)
@click.option(
    "--init",
    metavar="CHECKPOINT",
    help="Start from these weights: a folder, the folder of a run, or a model on the Hugging Face hub.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder of this run.  [default: RUNS/<task>/<model>-<hash>]",
)
@friendly_errors
def run(
    model: str,
    task: str,
    presets: tuple[str, ...],
    changes: tuple[str, ...],
    device: str,
    precision: str,
    runs: Path,
    dry_run: bool,
    as_json: bool,
    retry_failed: bool,
    seed: int,
    ablation: str | None,
    ablations: str | None,
    init: str | None,
    output: Path | None,
) -> None:
    """Train a model on a task, test it, and print the result.

    The same command again prints the stored result, or goes on where an interrupted run stopped.
    """
    from seqbench.environment import tune_allocator

    tune_allocator()
    from seqbench.plan import resolve
    from seqbench.preview import preview
    from seqbench.report.plot import plot_results
    from seqbench.report.table import run_report
    from seqbench.runner import execute
    from seqbench.store.run_folder import RunFolder
    from seqbench.training.trainer import Interrupted

    request = RunRequest(model, task, presets, parse_changes(changes), ablation, seed, device, precision, init)
    if ablations is not None:
        _run_ablations(request, ablations, output, runs, dry_run, retry_failed, as_json)
        return
    plan = resolve(request)
    folder = RunFolder(output or runs / plan.folder_name)
    if dry_run:
        click.echo(preview(plan, folder.path, as_json))
        return
    try:
        result = execute(plan, folder, runs, retry_failed)
    except Interrupted:
        click.echo(f"bench: stopped and saved in {folder.path}; the same command goes on from there", err=True)
        sys.exit(EXIT_INTERRUPTED)
    drawn = plot_results([result], folder.plot)
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        Console().print(run_report(result))
        click.echo(f"result: {folder.path / 'result.json'}" + (f"   plot: {folder.plot}" if drawn else ""))
    if result["status"] != "complete":
        sys.exit(EXIT_FAILED)


def _run_ablations(
    request: RunRequest, names: str, output: Path | None, runs: Path, dry_run: bool, retry_failed: bool, as_json: bool
) -> None:
    """`--ablations`: the whole model and its ablations, in one table."""
    from seqbench.cli.grid import carry_out, print_grid
    from seqbench.comparison import grid_folder, plan_ablations
    from seqbench.report.ablations import ablation_report

    if request.ablation is not None:
        raise RequestError("give --ablate for one run, or --ablations for a table of several, not both")
    chosen = parse_names(names)
    if not chosen:
        raise RequestError("--ablations takes names separated by commas, or all; `bench show MODEL` lists them")
    grid = plan_ablations(request, chosen, runs)
    if dry_run:
        print_grid(grid)
        return
    carry_out(grid, output or grid_folder(grid, runs, "ablations"), runs, ablation_report, retry_failed, as_json)
