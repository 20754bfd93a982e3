"""A task with its data found: what a plan, a stored run and a check work with."""

import dataclasses
from typing import Any

from transformers import PreTrainedTokenizerBase

from seqbench.contracts import TaskPlugin


def make_task(
    task_class: type[TaskPlugin[Any]], config: Any, tokenizer: PreTrainedTokenizerBase | None = None
) -> TaskPlugin[Any]:
    """The task of that config, for a model with that tokenizer (None: the ids of the task), ready to give data.

    Raises RequestError when its data is not there.
    """
    task = task_class(config)
    if tokenizer is not None:
        task = task.with_tokenizer(tokenizer)
    task.prepare()
    return task


def config_identity(task: TaskPlugin[Any]) -> dict[str, Any]:
    """The task's config as plain data, without the fields that say where data lies."""
    fields = dataclasses.asdict(task.config)
    return {name: value for name, value in fields.items() if name not in task.location_fields}


def locations(task: TaskPlugin[Any]) -> dict[str, Any]:
    """The fields of the task's config that say where data lies."""
    fields = dataclasses.asdict(task.config)
    return {name: value for name, value in fields.items() if name in task.location_fields}
