"""`bench show`: one plugin, the trainer, or a stored run."""

import json
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from seqbench.cli.options import friendly_errors
from seqbench.errors import RequestError


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@friendly_errors
def show(name: str, as_json: bool) -> None:
    """Show a model, a task, "trainer", or the folder of a stored run.

    For plugins: every field that --set can change, with its default, and the presets.
    """
    from seqbench.cli.description import describe
    from seqbench.registry import installed

    console = Console()
    # A folder that happens to have the name of a plugin does not hide it.
    if Path(name).is_dir() and name not in installed():
        _show_run(name, as_json, console)
        return
    content = describe(name)
    if as_json:
        click.echo(json.dumps(content, indent=2, default=str))
        return
    console.print(f"[bold]{content['name']}[/bold]  {content['summary']}")
    if content["documentation"]:
        console.print(content["documentation"], markup=False, highlight=False)
    console.print(_fields_table(content["fields"]))
    for preset, values in content["presets"].items():
        console.print(f"preset {preset}: {values}", markup=False, highlight=False, soft_wrap=True)
    for name, ablation in content.get("ablations", {}).items():
        console.print(f"ablation {name}: {_ablation(ablation)}", markup=False, highlight=False, soft_wrap=True)


def _show_run(path: str, as_json: bool, console: Console) -> None:
    from seqbench.report.table import run_report
    from seqbench.store.run_folder import RunFolder

    folder = RunFolder(Path(path))
    result = folder.read_result()
    if result is None:
        state = "holds a run that is not finished; its command goes on" if folder.read_run() else "holds no run"
        raise RequestError(f"{path} {state}")
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        console.print(run_report(result))


def _ablation(ablation: dict[str, Any]) -> str:
    phases = {"training and evaluation": ablation["in_training"], "evaluation alone (@eval)": ablation["at_evaluation"]}
    changes = ", ".join(f"{key}={value}" for key, value in ablation["changes"].items())
    return f"{ablation['summary']}; {changes}; at {' or '.join(phase for phase, fits in phases.items() if fits)}"


def _fields_table(fields: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("--set key", "default", "takes", "meaning"):
        table.add_column(heading, overflow="fold")
    for field in fields:
        takes = field["takes"] + (f", {field['allowed']}" if field["allowed"] else "")
        table.add_row(field["key"], str(field["default"]), takes, field["help"])
    return table
