"""What is installed, as plain data: models and tasks with their presets, and what a task's presets cost."""

import dataclasses
import traceback
from collections.abc import Mapping
from functools import partial
from importlib.metadata import EntryPoint
from typing import Any

from seqbench.contracts import TaskPlugin, TaskPreset
from seqbench.errors import RequestError
from seqbench.plugins.plugin_memory import remembered
from seqbench.plugins.registry import (
    MODEL_GROUP,
    TASK_GROUP,
    BrokenPlugin,
    entry_points_of,
    load_announced,
    takes_argument,
)

Row = dict[str, Any]

MEASURES_ONLY = "measures only"
SIZE_OF_THE_DATA = "size of the data"
UNKNOWN_COST = "unknown cost"


def installed_plugins(kind: str, renew: bool = False) -> list[Row]:
    """One row for each announced plugin of `kind`, "model" or "task", by name.

    A row has kind, name, summary, presets (name -> facts) and broken, which says why a plugin cannot be used and is
    empty otherwise; that of a model has its classification, field by field. What is broken has a traceback.
    No data is looked for, and nothing fails because of one plugin. Rows are remembered; `renew` asks the plugins again.
    """
    group = MODEL_GROUP if kind == "model" else TASK_GROUP
    return [
        remembered(f"{kind} in a list", points, partial(_row, kind, name, points, group), renew)
        for name, points in entry_points_of(group).items()
    ]


def _row(kind: str, name: str, points: list[EntryPoint], group: str) -> Row:
    row: Row = {"kind": kind, "name": name, "summary": "", "presets": {}, "broken": ""}
    plugin = load_announced(name, points, group)
    if isinstance(plugin, BrokenPlugin):
        return row | {"broken": f"{plugin.reason} ({plugin.target})", "traceback": plugin.traceback}
    return row | (_model_facts(name, plugin) if kind == "model" else _task_facts(plugin))


def _model_facts(name: str, plugin: Any) -> Row:
    # A plugin that takes an argument may know its presets only with it.
    known = plugin.presets if isinstance(plugin.presets, Mapping) else {}
    presets = {preset: {"summary": getattr(config, "summary", "")} for preset, config in known.items()}
    shown = f"{name}:…" if takes_argument(plugin) else name
    classification = dataclasses.asdict(plugin.classification)
    return {"name": shown, "summary": plugin.summary, "presets": presets, "classification": classification}


def _task_facts(plugin: Any) -> Row:
    presets = {name: _preset_facts(plugin, preset) for name, preset in plugin.presets.items()}
    return {"summary": plugin.summary, "presets": presets}


def _preset_facts(task_class: type[TaskPlugin[Any]], preset: TaskPreset[Any]) -> Row:
    """Summary, published figure, and cost: in words, and in training tokens (None where they are not known)."""
    facts: Row = {"summary": preset.summary, "figure": preset.figure, "training_tokens_at_most": None}
    try:
        tokens = training_tokens(task_class, preset)
    except RequestError:
        # How long the longest sequence is depends on data that is not there.
        return facts | {"cost": SIZE_OF_THE_DATA}
    except Exception as error:
        # A task is a stranger's code, and the others are to be listed all the same.
        broken = {"broken": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        return facts | {"cost": UNKNOWN_COST} | broken
    cost = f"at most {short(tokens)} training tokens" if tokens else MEASURES_ONLY
    return facts | {"cost": cost, "training_tokens_at_most": tokens}


def training_tokens(task_class: type[TaskPlugin[Any]], preset: TaskPreset[Any]) -> int:
    """Tokens that a run of the preset trains on if every sequence has the longest length; 0 if it trains nothing.

    Raises whatever the task raises, a RequestError where it needs data that is not there.
    """
    # A listing of models has no use for the trainer.
    from seqbench.training.settings import TrainerSettings

    if not task_class.trains:
        return 0
    trainer = dataclasses.replace(TrainerSettings(), **preset.trainer)
    return trainer.steps * trainer.batch_size * task_class(preset.config).longest_sequence


def short(count: int) -> str:
    """A whole number in three figures, as people type it: 950, 5.76M, 13.4B."""
    for limit, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        # From here on three figures round up to the unit.
        if count >= 0.9995 * limit:
            return f"{count / limit:.3g}{unit}"
    return str(count)
