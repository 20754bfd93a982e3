"""`bench compare`: several models on one task, over seeds."""

from pathlib import Path

import click

from seqbench.cli.options import friendly_errors, parse_changes, parse_names, run_options
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
    from seqbench.cli.grid import carry_out, print_grid
    from seqbench.comparison import grid_folder, plan_grid
    from seqbench.report.table import comparison_report

    names = parse_names(models)
    if not names:
        raise RequestError("--models takes names separated by commas; `bench list models` shows what is installed")
    request = RunRequest("", task, presets, parse_changes(changes), None, first_seed, device, precision)
    grid = plan_grid(request, names, seeds, runs)
    if dry_run:
        print_grid(grid)
        return
    folder = output or grid_folder(grid, runs, "comparison")
    carry_out(grid, folder, runs, comparison_report, retry_failed, as_json)
