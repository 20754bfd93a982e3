"""Options that a task brings along, such as `--data` for its field `data`."""

from collections.abc import Mapping
from typing import Any

import click

from seqbench.cli.command import Command


class TaskCommand(Command):
    """A command with `--task`, which takes the options of the named task too.

    The task is imported only where an option is typed that the command itself does not know, and for `--help`.
    """

    def translated(self, arguments: list[str]) -> list[str]:
        """With the task's options as `--set task.FIELD=VALUE`."""
        known = {name for parameter in self.params for name in (*parameter.opts, *parameter.secondary_opts)}
        typed = (argument for argument in arguments if argument.startswith("--") and argument != "--")
        if all(_name(argument) in known for argument in typed):
            return arguments
        return _translated(arguments, known, _options_of(_task_name(arguments)))

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's options, and where those of a task are told."""
        super().format_options(context, formatter)
        with formatter.section("Options of a task"):
            formatter.write_text("A task may bring options of its own for its data; `bench show TASK` lists them.")


def _options_of(task: str | None) -> Mapping[str, str]:
    """Option -> config field of the task; nothing for a task that cannot be found, which is reported later."""
    if task is None:
        return {}
    from seqbench.errors import RequestError
    from seqbench.plugins.registry import find_task

    try:
        return find_task(task).options
    except RequestError:
        return {}


def _task_name(arguments: list[str]) -> str | None:
    for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
        if argument == "--task":
            return following
        if argument.startswith("--task="):
            return argument.removeprefix("--task=")
    return None


def _translated(arguments: list[str], known: set[str], options: Mapping[str, str]) -> list[str]:
    """Each option of the task, in both spellings, as a change of the task's field; all else as it is."""
    translated: list[str] = []
    waiting: Any = iter(arguments)
    for argument in waiting:
        name = _name(argument)
        field = options.get(name.removeprefix("--")) if name not in known else None
        if field is None:
            translated.append(argument)
            continue
        _, equals, value = argument.partition("=")
        if not equals:
            value = next(waiting, None)
            if value is None:
                raise click.UsageError(f"Option {name!r} requires an argument.")
        translated += ["--set", f"task.{field}={value}"]
    return translated


def _name(argument: str) -> str:
    return argument.partition("=")[0]
