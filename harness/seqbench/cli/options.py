"""Options that several commands share, and what the commands do with errors."""

import functools
import json
import sys
import traceback as traceback_module
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from seqbench.errors import RequestError
from seqbench.request import DEVICES, PRECISIONS

EXIT_FAILED, EXIT_WRONG_REQUEST, EXIT_INTERRUPTED = 1, 2, 130

Command = Callable[..., Any]


def run_options(command: Command) -> Command:
    """Options of every command that trains."""
    options = [
        click.option("--task", required=True, help="Task: a name from `bench list tasks`, or package.module:Class."),
        click.option(
            "--preset",
            "presets",
            multiple=True,
            metavar="NAME",
            help="Preset of the model or the task; may be repeated.",
        ),
        click.option(
            "--set",
            "changes",
            multiple=True,
            metavar="KEY=VALUE",
            help="Change a documented field: model.FIELD, task.FIELD, or FIELD of the trainer; may be repeated."
            " `bench show NAME` lists the fields.",
        ),
        click.option(
            "--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Where to compute."
        ),
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            default="fp32",
            show_default=True,
            help="bf16 computes matrix products in bfloat16 and keeps fp32 weights.",
        ),
        click.option(
            "--runs",
            type=click.Path(path_type=Path),
            default=Path("runs"),
            show_default=True,
            help="Folder that keeps all runs.",
        ),
        click.option("--dry-run", is_flag=True, help="Print the resolved plan and stop."),
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON instead of a table."),
        click.option("--retry-failed", is_flag=True, help="Try runs again that are recorded as failed."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def friendly_errors(command: Command) -> Command:
    """Add --traceback, and turn errors into one message and an exit code.

    2: the request was wrong. 1: something failed while it was carried out.
    """

    @click.option("--traceback", is_flag=True, help="Show where an error was raised.")
    @functools.wraps(command)
    def wrapped(*arguments: Any, traceback: bool, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except RequestError as error:
            _report(error, traceback, options, "refused")
            sys.exit(EXIT_WRONG_REQUEST)
        except (KeyboardInterrupt, click.Abort):
            click.echo("bench: interrupted; the same command goes on from the last checkpoint", err=True)
            sys.exit(EXIT_INTERRUPTED)
        except Exception as error:
            if isinstance(error, click.ClickException | click.exceptions.Exit | SystemExit):
                raise
            _report(error, traceback, options, "error")
            sys.exit(EXIT_FAILED)

    return wrapped


def parse_changes(changes: tuple[str, ...]) -> dict[str, str]:
    """`KEY=VALUE` texts as a mapping. Raises RequestError for one without "=" and for a key given twice."""
    parsed: dict[str, str] = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not key.strip():
            raise RequestError(f"--set takes KEY=VALUE, for example --set steps=100, not {change!r}")
        if key.strip() in parsed:
            raise RequestError(f"--set {key.strip()} is given twice")
        parsed[key.strip()] = value
    return parsed


def parse_names(text: str) -> list[str]:
    """Names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _report(error: Exception, traceback: bool, options: dict[str, Any], status: str) -> None:
    if traceback:
        traceback_module.print_exception(error)
    message = str(error) if isinstance(error, RequestError) else f"{type(error).__name__}: {error}"
    if options.get("as_json"):
        click.echo(json.dumps({"status": status, "message": message}))
    click.echo(f"bench: {message}", err=True)
    if not traceback and not isinstance(error, RequestError):
        click.echo("the same command with --traceback shows where", err=True)
