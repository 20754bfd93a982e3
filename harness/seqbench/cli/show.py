"""`bench show`: one plugin, the trainer, or a stored run."""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from seqbench.cli.command import Command
from seqbench.cli.console import console, say
from seqbench.cli.options import friendly_errors
from seqbench.errors import RequestError
from seqbench.report.document import Row, Sheet
from seqbench.surroundings.visible import visible


@click.command(cls=Command)
@click.argument("name")
@click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder that keeps all runs, for the hash or name of one.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option("--reload", "renew", is_flag=True, help="Ask the plugin again instead of remembering what it said.")
@friendly_errors
def show(name: str, runs: Path, as_json: bool, renew: bool) -> None:
    """Show a model, a task, "trainer", or a stored run: its folder, its hash or its name.

    For plugins: every field that --set can change, with its default, and the presets.
    """
    from seqbench.plugins.registry import installed
    from seqbench.store.lookup import find_run, is_meant

    out = console()
    # A folder that happens to have the name of a plugin does not hide it.
    if name not in {*installed(), "trainer"} and is_meant(name, runs):
        _show_run(str(find_run(name, runs)), as_json, out)
        return
    content = _description(name, renew)
    if as_json:
        click.echo(json.dumps(content, indent=2, default=str))
        return
    out.print(Text.assemble((visible(content["name"]), "bold"), "  ", visible(content["summary"])))
    if content["documentation"]:
        out.print(visible(_reflowed(content["documentation"])), markup=False, highlight=False)
    out.print(_fields_sheet(content["fields"]))
    for option, field in content.get("options", {}).items():
        out.print(f"{option} VALUE is short for --set {field}=VALUE", markup=False, highlight=False)
    ablations = {key: _ablation(value) for key, value in content.get("ablations", {}).items()}
    for kind, entries in (("preset", content["presets"]), ("ablation", ablations)):
        if entries:
            out.print(Sheet("", (kind, "what it is"), [Row(entry) for entry in entries.items()], prose=(1,)))


def _description(name: str, renew: bool) -> dict[str, Any]:
    from seqbench.plugins.plugin_memory import remembered
    from seqbench.plugins.registry import MODEL_GROUP, TASK_GROUP, entry_points_of

    def ask() -> dict[str, Any]:
        from seqbench.cli.description import describe

        return describe(name)

    points = [point for group in (MODEL_GROUP, TASK_GROUP) for point in entry_points_of(group).get(name, ())]
    # A dotted path may lead anywhere, and a folder's models change with the folder.
    return remembered("description", points, ask, renew) if points or name == "trainer" else ask()


def _reflowed(text: str) -> str:
    """A docstring whose paragraphs are lines of their own, for the terminal to break; sketches and lists stay."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(
        paragraph if "\n " in f"\n{paragraph}" or "\n- " in f"\n{paragraph}" else paragraph.replace("\n", " ")
        for paragraph in paragraphs
    )


def _show_run(path: str, as_json: bool, out: Console) -> None:
    from seqbench.report.table import run_report
    from seqbench.running.edited_source import edited_since, what_to_do
    from seqbench.store.damage import tell
    from seqbench.store.run_folder import RunFolder

    folder = RunFolder(Path(path))
    result = folder.whole_result()
    if result is None:
        state = "holds a run that is not finished; its command goes on" if folder.read_run() else "holds no run"
        raise RequestError(f"{path} {state}")
    for remark in folder.remarks():
        tell(f"{path}: {remark}")
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        out.print(run_report(result))
    for difference in edited_since(result):
        say(what_to_do(difference, result["hash"]), err=True)


def _ablation(ablation: dict[str, Any]) -> str:
    phases = {"training and evaluation": ablation["in_training"], "evaluation alone (@eval)": ablation["at_evaluation"]}
    changes = ", ".join(f"{key}={value}" for key, value in ablation["changes"].items())
    return f"{ablation['summary']}; {changes}; at {' or '.join(phase for phase, fits in phases.items() if fits)}"


def _fields_sheet(fields: list[dict[str, Any]]) -> Sheet:
    rows = [Row((field["key"], _default(field["default"]), f"{field['help']} ({_takes(field)})")) for field in fields]
    return Sheet("", ("--set key", "default", "meaning"), rows, prose=(1, 2))


def _default(value: Any) -> str:
    # JSON has lists for tuples.
    return str(tuple(value) if isinstance(value, list) else value)


def _takes(field: dict[str, Any]) -> str:
    return field["takes"] + (f", {field['allowed']}" if field["allowed"] else "")
