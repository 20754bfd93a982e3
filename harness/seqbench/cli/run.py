"""`bench run`: one model on one task."""

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seqbench.cli.console import console, say
from seqbench.cli.numbers import Count
from seqbench.cli.options import friendly_errors, parse_names, run_options, shared_request, tell_remarks
from seqbench.cli.task_options import TaskCommand
from seqbench.errors import EXIT_FAILED, RequestError
from seqbench.planning.request import SPLITS, RunRequest

if TYPE_CHECKING:
    from seqbench.planning.plan import RunPlan
    from seqbench.store.run_folder import RunFolder


@click.command(cls=TaskCommand, lists=("--ablations",), excludes={"--ablations": ("--ablate",)})
@click.option("--model", required=True, help="Model: a name from `bench list models`, or package.module:Class.")
@run_options
@click.option("--seed", type=Count(0, 2**31 - 1), default=0, show_default=True, help="Weights and data order.")
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
    help="Run the whole model and these ablations, separated by commas, or `all`, and print one table (with --json the"
    " content of its comparison.json: all results).",
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
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    default="test",
    show_default=True,
    help="What the trained model is measured on; searches use validation.",
)
@friendly_errors
def run(
    model: str,
    runs: Path,
    dry_run: bool,
    as_json: bool,
    retry_failed: bool,
    seed: int,
    ablation: str | None,
    ablations: str | None,
    init: str | None,
    output: Path | None,
    split: str,
    **shared: Any,
) -> None:
    """Train a model on a task, test it, and print the result.

    The same command again prints the stored result, or goes on where an interrupted run stopped.
    """
    _require_one(model, shared["task"])
    from seqbench.environment import tune_allocator, use_threads

    tune_allocator()
    use_threads(shared["threads"])
    from seqbench.planning.plan import resolve
    from seqbench.report.run_plots import draw
    from seqbench.running.preview import preview
    from seqbench.running.runner import execute
    from seqbench.store.run_folder import RunFolder
    from seqbench.surroundings.stopping import Stopped, keeping

    request = shared_request(model, seed, shared, ablation=ablation, init=init, split=split)
    if ablations is not None:
        _run_ablations(request, ablations, output, runs, dry_run, retry_failed, as_json)
        return
    plan = resolve(request)
    tell_remarks([plan])
    folder = RunFolder(output or runs / plan.folder_name)
    if dry_run:
        say(preview(plan, folder.path, as_json))
        return
    with keeping(partial(_kept, plan, folder, runs)):
        try:
            result = execute(plan, folder, runs, retry_failed)
        except Stopped:
            draw([], folder, plan)
            raise
        _show(result, plan, folder, as_json)


def _require_one(model: str, task: str) -> None:
    """Raise RequestError for several models; a path may have commas and spaces in it."""
    names = parse_names(model)
    if len(names) > 1 and os.sep not in model:
        raise RequestError(
            f"--model takes one model, not {model!r}; for several type: bench compare --models {','.join(names)}"
            f" --task {task}"
        )


def _show(result: dict[str, Any], plan: "RunPlan", folder: "RunFolder", as_json: bool) -> None:
    from seqbench.report.run_plots import draw
    from seqbench.running.edited_source import edited_since, what_to_do
    from seqbench.running.rounding import made_otherwise

    for difference in made_otherwise(plan, folder):
        say(f"bench: the stored result was made with {difference}; a new --output runs it again", err=True)
    for difference in edited_since(result):
        say(what_to_do(difference, result["hash"]), err=True)
    drawn = draw([result], folder, plan)
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        # Imports scipy's tests, for which the runs of a grid, which print JSON, need not wait.
        from seqbench.report.table import run_report

        console().print(run_report(result))
        plots = f"   plots: {', '.join(map(str, drawn))}" if drawn else ""
        say(f"result: {folder.path / 'result.json'}{plots}")
    if result["status"] != "complete":
        sys.exit(EXIT_FAILED)


def _kept(plan: "RunPlan", folder: "RunFolder", runs: Path) -> str:
    """What is saved of a run, in words."""
    from seqbench.store.run_folder import RunFolder
    from seqbench.training.checkpoint import list_checkpoints, step_of

    # An ablation at evaluation alone tests what another run trains.
    for place in (folder.path, runs / plan.trained.folder_name):
        saved = list_checkpoints(RunFolder(place).checkpoints)
        if saved:
            return f"saved in {place} at step {step_of(saved[-1])}"
    return "before there was a checkpoint to go on from: the next command begins at step 0"


def _run_ablations(
    request: RunRequest, names: str, output: Path | None, runs: Path, dry_run: bool, retry_failed: bool, as_json: bool
) -> None:
    """`--ablations`: the whole model and its ablations, in one table."""
    from seqbench.cli.grid import Destination, carry_out, print_runs
    from seqbench.comparing.grid import grid_folder, plan_ablations
    from seqbench.comparing.scheduler import places
    from seqbench.report.ablations import ablation_report
    from seqbench.store.place import require_place

    chosen = parse_names(names)
    if not chosen:
        raise RequestError("--ablations takes names separated by commas, or all; `bench show MODEL` lists them")
    grid = plan_ablations(request, chosen, runs)
    tell_remarks([cell.plan for cell in grid])
    if dry_run:
        require_place(output or runs)
        print_runs(grid, as_json)
        return
    destination = Destination(output or grid_folder(grid, runs, "ablations"), output is not None)
    where = places(None, request.device, request.budget_kind, request.threads)
    carry_out(grid, destination, runs, ablation_report, retry_failed, as_json, where)
