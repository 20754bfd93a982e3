"""`bench runs`: what a store holds."""

import dataclasses
import json
import sys
from pathlib import Path

import click

from seqbench.cli.command import Command
from seqbench.cli.console import console, say
from seqbench.cli.options import friendly_errors
from seqbench.errors import RequestError
from seqbench.report.document import Document, Line, Row, Sheet
from seqbench.store.catalogue import STATES, StoredRun, stored_runs
from seqbench.store.elsewhere import forget
from seqbench.store.removal import remove_run, require_removable


@click.command("runs", cls=Command, needs={"--yes": "--remove"})
@click.option(
    "--runs",
    "store",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder that keeps all runs.",
)
@click.option("--model", help="Only runs of this model.")
@click.option("--task", help="Only runs on this task.")
@click.option("--state", type=click.Choice(STATES), help="Only runs in this state.")
@click.option("--hash", "digits", metavar="DIGITS", help="Only runs whose hash begins with these digits.")
@click.option("--remove", is_flag=True, help="Delete the listed runs, after asking; in a script, add --yes.")
@click.option("--yes", is_flag=True, help="With --remove: do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@friendly_errors
def list_runs(
    store: Path,
    model: str | None,
    task: str | None,
    state: str | None,
    digits: str | None,
    remove: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """List the runs of a store with their state and progress; --remove deletes those that are listed."""
    wanted = {"model": model, "task": task, "state": state}
    found = [
        run
        for run in stored_runs(store)
        if all(value is None or _matches(run, field, value) for field, value in wanted.items())
        and run.hash.startswith(digits or "")
    ]
    if as_json:
        rows = [{**dataclasses.asdict(run), "folder": str(run.folder)} for run in found]
        click.echo(json.dumps(rows, indent=2))
    else:
        console().print(_listing(store, found))
    if remove:
        _remove(store, found, yes)


def _matches(run: StoredRun, field: str, value: str) -> bool:
    held = getattr(run, field)
    # A model's name stands for its ablations too.
    return held == value or (field == "model" and held.startswith(f"{value} ("))


def _listing(store: Path, found: list[StoredRun]) -> Document:
    headings = ("hash", "task", "model", "seed", "state", "trained", "size", "")
    rows = [
        Row(
            (
                run.hash,
                run.task,
                run.model,
                f"{run.seed}",
                run.state,
                _trained(run),
                _size(run.bytes),
                _detail(store, run),
            )
        )
        for run in found
    ]
    total = Line(f"{_count(found)}, {_size(sum(run.bytes for run in found))}")
    return Document([Sheet("", headings, rows, left=(0, 1, 4), prose=(2, 5, 7)), total] if found else [total])


def _detail(store: Path, run: StoredRun) -> str:
    """What is known besides; of a run that --output has put elsewhere, the folder too."""
    elsewhere = run.folder.parent.parent != store
    return "; ".join([*filter(None, [run.detail]), *([f"in {run.folder}"] if elsewhere else [])])


def _trained(run: StoredRun) -> str:
    return f"{run.progress:.0%} of {run.budget}"


def _remove(store: Path, found: list[StoredRun], yes: bool) -> None:
    at_work = [run for run in found if run.state == "running"]
    if at_work:
        raise RequestError(f"{at_work[0].folder} is running; stop it first, or leave it out with --state or --hash")
    foreign = [run for run in found if run.state == "foreign"]
    if foreign:
        raise RequestError(
            f"{foreign[0].folder} was not written by this version of bench; remove it by hand, or leave it out with"
            " --state or --hash"
        )
    for run in found:
        # Before the first one goes.
        require_removable(run.folder)
    if not found:
        say("nothing to remove", err=True)
        return
    if not yes and not sys.stdin.isatty():
        raise RequestError(f"--remove asks before it deletes {_count(found)}, and nobody is there to answer; add --yes")
    if not yes and not click.confirm(f"delete {_count(found)}?", err=True):
        say("nothing removed", err=True)
        return
    for run in found:
        remove_run(run.folder)
        forget(store, run.folder)
    say(f"removed {_count(found)}", err=True)


def _count(found: list[StoredRun]) -> str:
    return "1 run" if len(found) == 1 else f"{len(found)} runs"


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
