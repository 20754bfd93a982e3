"""`bench show`: one plugin, the trainer, or a stored run."""

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import click
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from seqbench.accounting import count_parameters, non_embedding
from seqbench.cli.options import friendly_errors
from seqbench.contracts import ModelPlugin, TaskPlugin, describe_settings
from seqbench.errors import RequestError
from seqbench.registry import find_model, find_task, installed
from seqbench.report.table import run_report
from seqbench.store.run_folder import RunFolder
from seqbench.training.settings import TrainerSettings


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@friendly_errors
def show(name: str, as_json: bool) -> None:
    """Show a model, a task, "trainer", or the folder of a stored run.

    For plugins: every field that --set can change, with its default, and the presets.
    """
    console = Console()
    # A folder that happens to have the name of a plugin does not hide it.
    if Path(name).is_dir() and name not in installed():
        _show_run(name, as_json, console)
        return
    content = _describe(name)
    if as_json:
        click.echo(json.dumps(content, indent=2, default=str))
        return
    console.print(f"[bold]{content['name']}[/bold]  {content['summary']}")
    if content["documentation"]:
        console.print(content["documentation"], markup=False, highlight=False)
    console.print(_fields_table(content["fields"]))
    for preset, values in content["presets"].items():
        console.print(f"preset {preset}: {values}", markup=False, highlight=False, soft_wrap=True)
    for ablation, changes in content.get("ablations", {}).items():
        console.print(f"ablation {ablation}: {changes}", markup=False, highlight=False)


def _show_run(path: str, as_json: bool, console: Console) -> None:
    folder = RunFolder(Path(path))
    result = folder.read_result()
    if result is None:
        state = "holds a run that is not finished; its command goes on" if folder.read_run() else "holds no run"
        raise RequestError(f"{path} {state}")
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        console.print(run_report(result))


def _describe(name: str) -> dict[str, Any]:
    if name == "trainer":
        return {
            "name": "trainer",
            "summary": "how every model is trained; a task's preset may change these defaults",
            "documentation": "",
            "fields": _fields(TrainerSettings, "", TrainerSettings()),
            "presets": {},
        }
    # The kind that knows the name is shown; when neither does, its message names what is installed.
    try:
        task_class = find_task(name)
    except RequestError as task_error:
        try:
            return _describe_model(find_model(name), name)
        except RequestError as model_error:
            if "unknown" in str(model_error) and "unknown" not in str(task_error):
                raise task_error from None
            raise RequestError(f"{model_error}\n{task_error}") from None
    return _describe_task(task_class, name)


def _describe_model(plugin: ModelPlugin[Any], name: str) -> dict[str, Any]:
    presets = {}
    for preset, config in plugin.presets.items():
        with torch.device("meta"):
            parameters = count_parameters(plugin, plugin.build(config))
        size = f"{sum(parameters.values()):,} parameters, {non_embedding(parameters):,} non-embedding"
        presets[preset] = f"{size}; {_differences(config)}"
    return {
        "name": name,
        "summary": plugin.summary,
        "documentation": inspect.getdoc(type(plugin)) or "",
        "fields": _fields(plugin.config_class, "model.", plugin.presets[plugin.default_preset]),
        "presets": presets,
        "ablations": {ablation: dict(changes) for ablation, changes in plugin.ablations.items()},
    }


def _describe_task(task_class: type[TaskPlugin[Any]], name: str) -> dict[str, Any]:
    presets = {}
    for preset, value in task_class.presets.items():
        trainer = "; trainer " + ", ".join(f"{key}={entry}" for key, entry in value.trainer.items())
        presets[preset] = f"{value.summary}; {_differences(value.config)}{trainer if value.trainer else ''}"
    return {
        "name": name,
        "summary": task_class.summary,
        "documentation": inspect.getdoc(task_class) or "",
        "fields": _fields(task_class.config_class, "task.", task_class.presets[task_class.default_preset].config),
        "presets": presets,
    }


def _fields(config_class: type, prefix: str, defaults: Any) -> list[dict[str, Any]]:
    return [
        {
            "key": prefix + info.name,
            "default": getattr(defaults, info.name),
            "takes": info.type_name,
            "allowed": info.allowed,
            "help": info.help,
        }
        for info in describe_settings(config_class).values()
    ]


def _fields_table(fields: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("--set key", "default", "takes", "meaning"):
        table.add_column(heading, overflow="fold")
    for field in fields:
        takes = field["takes"] + (f", {field['allowed']}" if field["allowed"] else "")
        table.add_row(field["key"], str(field["default"]), takes, field["help"])
    return table


def _differences(config: Any) -> str:
    """Fields of a preset that are not the class's defaults."""
    changed = [
        f"{field.name}={getattr(config, field.name)}"
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != field.default
    ]
    return ", ".join(changed) or "the defaults"
