"""`bench compare`: several models on one task, over seeds."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seqbench.cli.console import console
from seqbench.cli.numbers import LARGEST_SECONDS, Amount, Count
from seqbench.cli.options import friendly_errors, parse_names, run_options, shared_request, tell_remarks
from seqbench.cli.task_options import TaskCommand
from seqbench.errors import RequestError
from seqbench.planning.request import RunRequest
from seqbench.surroundings.variables import LARGEST_THREADS

if TYPE_CHECKING:
    from seqbench.cli.grid import Report
    from seqbench.comparing.grid import GridRun
    from seqbench.comparing.search import Choice, Outlook, Search
    from seqbench.report.item_scores import ReadItems
    from seqbench.report.results import Result


@click.command(cls=TaskCommand, lists=("--models",), needs={"--halving": "--search", "--trial-share": "--search"})
@click.option("--models", required=True, help="Models, separated by commas or spaces.")
@run_options
@click.option(
    "--ablate",
    "ablations",
    multiple=True,
    metavar="MODEL=NAME",
    help="Show one of the models also without a part, beside the whole one and with the same seeds; NAME is one of its"
    " ablations (`bench show MODEL`), NAME@eval tests the model that was trained whole; may be repeated.",
)
@click.option(
    "--init",
    "checkpoints",
    multiple=True,
    metavar="MODEL=CHECKPOINT",
    help="Start one of the models from these weights: a folder, the folder of a run, or a model on the Hugging Face"
    " hub; may be repeated.",
)
@click.option("--seeds", type=Count(most=1000), default=3, show_default=True, help="Number of seeds.")
@click.option("--first-seed", type=Count(0, 2**30 - 1), default=0, show_default=True, help="The first of them.")
@click.option(
    "--search",
    "axes",
    multiple=True,
    metavar="FIELD=LOW:HIGH:COUNT",
    help="Choose a field of the trainer for each model from the same values, on the validation set, with seeds of its"
    " own: lr=1e-4:1e-2:5, or optimizer=adamw,muon; may be repeated. Extended once when the best lies at an edge.",
)
@click.option(
    "--trial-share",
    type=Amount(1),
    default=0.25,
    show_default=True,
    help="With --search: share of the full training that a trial gets.",
)
@click.option(
    "--halving", is_flag=True, help="With --search: try all points for a quarter of that, go on with the better half."
)
@click.option(
    "--jobs",
    type=Count(most=LARGEST_THREADS),
    help="Runs side by side.  [default: one per core, or per device; 1 for --seconds]",
)
@click.option("--time-limit", type=Amount(LARGEST_SECONDS), help="Seconds after which a run is given up.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder of the comparison's tables and plot.  [default: RUNS/<task>/comparison-<hash>]",
)
@friendly_errors
def compare(
    models: str,
    runs: Path,
    dry_run: bool,
    as_json: bool,
    retry_failed: bool,
    ablations: tuple[str, ...],
    checkpoints: tuple[str, ...],
    seeds: int,
    first_seed: int,
    axes: tuple[str, ...],
    trial_share: float,
    halving: bool,
    jobs: int | None,
    time_limit: float | None,
    output: Path | None,
    **shared: Any,
) -> None:
    """Train and test several models on the same data, and say who is ahead.

    First the plan is printed: sizes, runs, FLOPs, time and disk; --dry-run stops there. Runs and trials that are stored
    already are not repeated; a model that fails is reported and the others go on. `--set MODEL.FIELD=VALUE` changes a
    field of one of the compared models. A search chooses for whole models; without a part they are trained with the
    point that was found for the whole one. With --json the content of comparison.json is printed, with --dry-run the
    plan.
    """
    from seqbench.cli.grid import Destination, carry_out, print_runs, saying_what_is_done
    from seqbench.comparing.estimate import missing
    from seqbench.comparing.grid import columns, grid_folder, grid_run, plan_grid
    from seqbench.comparing.scheduler import places, run_grid
    from seqbench.report.document import Document
    from seqbench.report.search_table import search_lines
    from seqbench.running.standing import standing_result
    from seqbench.store.place import require_place

    names = parse_names(models)
    if not names:
        raise RequestError(
            "--models takes names separated by commas or spaces; `bench list models` shows what is installed"
        )
    request = shared_request("", first_seed, shared)
    parts = _by_model("--ablate", "NAME", ablations, names)
    requests = columns(request, names, parts, _only_one_each(_by_model("--init", "CHECKPOINT", checkpoints, names)))
    where = places(jobs, request.device, request.budget_kind, request.threads)
    grid = plan_grid(requests, seeds, runs)
    search = _search(axes, requests, trial_share, halving, grid)

    def find(trial: RunRequest) -> dict[str, Any] | None:
        cell = grid_run(trial, runs)
        return standing_result(cell.plan, cell.folder, runs, retry_failed, time_limit)

    def run_trials(trials: Sequence[RunRequest]) -> list[dict[str, Any]]:
        cells = [grid_run(trial, runs) for trial in trials]
        with saying_what_is_done(cells):
            return run_grid(cells, runs, retry_failed, where, runs / "logs", time_limit)

    outlook = search.look_ahead(find) if search is not None else None
    choices: Sequence[Choice] | None = outlook.choices if outlook is not None else ()
    if choices:
        grid = plan_grid(requests, seeds, runs, _found(choices))
    is_searching = choices is None
    # Until the search has ended its final runs are not known, stored or not.
    to_do = grid if is_searching else missing(grid, runs, retry_failed, time_limit)
    if to_do:
        require_place(output or runs)
    tell_remarks([cell.plan for cell in grid])
    known = _print_plan(grid, to_do, outlook, is_searching, len(where), stderr=as_json or not dry_run)
    if dry_run:
        # The folders of the final runs follow from what the search finds.
        print_runs([] if is_searching else grid, as_json, known)
        return
    if search is not None and is_searching:
        choices = search.carry_out(run_trials)
        console(stderr=True).print(Document(search_lines(choices)))
        grid = plan_grid(requests, seeds, runs, _found(choices))

    report = _with_search(choices or (), grid[0].plan.task.primary_metric)
    destination = Destination(output or grid_folder(grid, runs, "comparison"), output is not None)
    carry_out(grid, destination, runs, report, retry_failed, as_json, where, time_limit)


def _by_model(option: str, what: str, texts: Sequence[str], models: Sequence[str]) -> list[tuple[str, str]]:
    """`MODEL=VALUE` texts as pairs. Raises RequestError for one that names none of the models, or nothing behind it."""
    pairs = []
    for text in texts:
        model = next((name for name in models if text.startswith(f"{name}=")), None)
        if model is None or text == f"{model}=":
            raise RequestError(
                f"{option} takes MODEL={what} with one of --models ({', '.join(models)}), for example"
                f" {option} {models[0]}={what}, not {text!r}"
            )
        pairs.append((model, text.removeprefix(f"{model}=")))
    return pairs


def _only_one_each(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    checkpoints = dict(pairs)
    if len(checkpoints) < len(pairs):
        raise RequestError("--init names a model twice; a model starts from one checkpoint")
    return checkpoints


def _search(
    axes: Sequence[str], requests: Sequence[RunRequest], share: float, halving: bool, grid: Sequence["GridRun"]
) -> "Search | None":
    """The search that was asked for, of the whole models; None without any."""
    from seqbench.comparing.search import Search, parse_axes

    if not axes:
        return None
    parsed = parse_axes(axes, requests[0].changes)
    if not grid[0].plan.task.trains or not grid[0].plan.budget.target:
        raise RequestError(f"task {grid[0].plan.task_name} trains nothing here; leave --search out")
    whole = {request.model: request for request in requests if request.ablation is None}
    return Search(whole, parsed, share, halving)


def _found(choices: Sequence["Choice"]) -> dict[str, dict[str, str]]:
    """Model -> the trainer fields that the search chose for it."""
    return {choice.model: dict(choice.point) for choice in choices}


def _with_search(choices: Sequence["Choice"], metric: str) -> "Report":
    """The report of a comparison, at its end what a search found; the choices are stored too."""
    from seqbench.report.document import Document
    from seqbench.report.results import words
    from seqbench.report.search_table import search_parts
    from seqbench.report.table import comparison_report

    if not choices:
        return comparison_report

    def report(results: Sequence["Result"], read_items: "ReadItems") -> Document:
        compared = comparison_report(results, read_items)
        record = {"search": [dataclasses.asdict(choice) for choice in choices]}
        return Document([*compared.parts, *search_parts(choices, words(metric))], {**compared.data, **record})

    return report


def _print_plan(
    grid: Sequence["GridRun"],
    to_do: Sequence["GridRun"],
    outlook: "Outlook | None",
    is_searching: bool,
    jobs: int,
    stderr: bool,
) -> Mapping[str, Any]:
    """Print what is left to do, and return it as plain data; sizes and times are found out only where something is."""
    from seqbench.comparing.estimate import estimate_models
    from seqbench.report.plan import Work, nothing_to_do, plan_report

    if not to_do:
        document = nothing_to_do(len(grid), outlook)
        console(stderr).print(document)
        return document.data
    counts: dict[str, int] = {}
    for cell in to_do:
        counts[cell.plan.label] = counts.get(cell.plan.label, 0) + 1
    ablated = {cell.plan.label: cell.plan.model_name for cell in grid if cell.request.ablation and is_searching}
    document = plan_report(estimate_models(grid), Work(len(grid), counts, jobs, outlook, ablated))
    console(stderr).print(document)
    return document.data
