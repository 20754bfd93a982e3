"""A model, a task or the trainer as plain data: what `bench show` prints."""

import dataclasses
import inspect
from typing import Any

from seqbench.accounting.counting import count_parameters, non_embedding
from seqbench.accounting.meta_build import build_without_memory
from seqbench.contracts import ModelPlugin, TaskPlugin, describe_settings
from seqbench.errors import RequestError
from seqbench.plugins.registry import find_model, find_task
from seqbench.training.settings import TrainerSettings


def describe(name: str) -> dict[str, Any]:
    """Fields, presets and words of the plugin called `name`, or of "trainer". Raises RequestError for unknown names."""
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
        parameters = count_parameters(plugin, build_without_memory(plugin, config))
        size = f"{sum(parameters.values()):,} parameters, {non_embedding(parameters):,} non-embedding"
        presets[preset] = f"{size}; {_differences(config)}"
    return {
        "name": name,
        "summary": plugin.summary,
        "documentation": "\n\n".join(filter(None, (inspect.getdoc(type(plugin)), plugin.classification.words()))),
        "classification": dataclasses.asdict(plugin.classification),
        "fields": _fields(plugin.config_class, "model.", plugin.presets[plugin.default_preset]),
        "presets": presets,
        "ablations": {name: dataclasses.asdict(ablation) for name, ablation in plugin.ablations.items()},
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
        "options": {f"--{option}": f"task.{field}" for option, field in task_class.options.items()},
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


def _differences(config: Any) -> str:
    """Fields of a preset that are not the class's defaults."""
    changed = [
        f"{field.name}={getattr(config, field.name)}"
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != field.default
    ]
    return ", ".join(changed) or "the defaults"
