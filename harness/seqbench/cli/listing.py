"""`bench list`: what is installed."""

import json
from collections.abc import Mapping
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from seqbench.cli.options import friendly_errors


@click.command("list")
@click.argument("what", type=click.Choice(["models", "tasks", "presets"]), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--verbose", is_flag=True, help="Show the traceback of broken plugins.")
@friendly_errors
def list_plugins(what: str | None, as_json: bool, verbose: bool) -> None:
    """List installed models, tasks or presets (all of them without an argument); broken plugins with the reason."""
    wanted = [what] if what in ("models", "tasks") else ["models", "tasks"]
    rows = [row for kind in wanted for row in _describe(kind, verbose)]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    console = Console()
    if what == "presets":
        console.print(_presets_table(rows))
        return
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("kind", "name", "what it is", "presets"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        state = f"[red]broken:[/red] {row['broken']}" if row["broken"] else row["summary"]
        table.add_row(row["kind"], row["name"], state, ", ".join(row["presets"]))
    console.print(table)
    for row in rows:
        if row.get("traceback"):
            console.print(row["traceback"], markup=False, highlight=False)


def _describe(kind: str, verbose: bool) -> list[dict[str, Any]]:
    from seqbench.registry import MODEL_GROUP, TASK_GROUP, BrokenPlugin, announced, takes_argument

    rows: list[dict[str, Any]] = []
    for name, plugin in announced(MODEL_GROUP if kind == "models" else TASK_GROUP).items():
        row: dict[str, Any] = {
            "kind": kind.removesuffix("s"),
            "name": name,
            "summary": "",
            "presets": {},
            "broken": "",
        }
        if isinstance(plugin, BrokenPlugin):
            row["broken"] = f"{plugin.reason} ({plugin.target})"
            if verbose:
                row["traceback"] = plugin.traceback
        else:
            shown = f"{name}:…" if kind == "models" and takes_argument(plugin) else name
            # A plugin that takes an argument may know its presets only with it.
            known = plugin.presets if isinstance(plugin.presets, Mapping) else {}  # type: ignore[attr-defined]
            presets = {preset: getattr(value, "summary", "") for preset, value in known.items()}
            row |= {"name": shown, "summary": plugin.summary, "presets": presets}  # type: ignore[attr-defined]
        rows.append(row)
    return rows


def _presets_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("kind", "name", "preset", "what it is for"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        for preset, summary in row["presets"].items():
            table.add_row(row["kind"], row["name"], preset, summary)
    return table
