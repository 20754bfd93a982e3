"""`bench verify`: a finished run tested again from its files."""

import dataclasses
import json
import sys
from pathlib import Path

import click

from seqbench.cli.command import Command
from seqbench.cli.console import console, say
from seqbench.cli.options import friendly_errors
from seqbench.errors import EXIT_FAILED


@click.command(cls=Command)
@click.argument("run")
@click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder that keeps all runs; an ablation at evaluation alone was trained in another run.",
)
@click.option(
    "--kernels",
    metavar="REQUEST",
    help="Paths that kernels are to take, as for `bench run`.  [default: those of the run]",
)
@click.option("--trust-plugins", is_flag=True, help="Import plugins that the run names from the working folder.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@friendly_errors
def verify(run: str, runs: Path, kernels: str | None, trust_plugins: bool, as_json: bool) -> None:
    """Test the stored model of a finished RUN again and say whether its figures hold.

    RUN is its folder, or its hash or name as `bench runs` tells them.

    Also looked at: parameters, and the hash of the training data. Exit code 1 when anything differs by more than
    rounding does.
    """
    from seqbench.environment import tune_allocator

    tune_allocator()
    from seqbench.report.document import Row, Sheet
    from seqbench.running.verification import verify_run
    from seqbench.store.lookup import find_run
    from seqbench.store.run_folder import RunFolder

    findings = verify_run(RunFolder(find_run(run, runs)), runs, kernels, trust_plugins)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        rows = [
            Row((finding.what, "yes" if finding.holds else "NO", finding.detail), "" if finding.holds else "bold red")
            for finding in findings
        ]
        console().print(Sheet("", ("figure", "holds", ""), rows, prose=(0, 1, 2)))
    wrong = sum(not finding.holds for finding in findings)
    say(f"{len(findings) - wrong} of {len(findings)} hold", err=as_json)
    if wrong:
        sys.exit(EXIT_FAILED)
