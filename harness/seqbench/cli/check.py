"""`bench check`: a model or a task held to its contract, clause by clause."""

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from seqbench.cli.command import Command
from seqbench.cli.console import console
from seqbench.cli.options import friendly_errors, kernels_option, parse_changes, tell_broken_kernels
from seqbench.errors import EXIT_FAILED, RequestError
from seqbench.report.document import Row, Sheet
from seqbench.surroundings.visible import visible

if TYPE_CHECKING:
    from seqbench.testing import Outcome, Report

_COLOURS = {"passed": "", "failed": "red", "declared": "yellow", "not reached": "dim"}
# Of what a plugin printed in a clause that fails, the lines that are shown.
_LAST_LINES = 5


@click.command(cls=Command)
@click.argument("name")
@click.option("--preset", metavar="NAME", help="Preset to examine.  [default: the plugin's default one]")
@click.option("--kind", type=click.Choice(["model", "task"]), help="Which one is meant where NAME is both.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="task.FIELD=VALUE",
    help="Change a field of a task's config, such as where its data lies; may be repeated.",
)
@click.option(
    "--clause",
    "clauses",
    multiple=True,
    metavar="NAME",
    help="Run this clause and what it rests on; may be repeated.  [default: all]",
)
@kernels_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@friendly_errors
def check(
    name: str,
    preset: str | None,
    kind: str | None,
    changes: tuple[str, ...],
    clauses: tuple[str, ...],
    kernels: str | None,
    as_json: bool,
) -> None:
    """Hold a model or a task to the contract of plugins, clause by clause.

    NAME is a name from `bench list`, with its argument where it takes one (name:argument), or package.module:Class.

    A small instance is built on the CPU and tried: whether a prediction depends on later tokens, whether a sequence
    fed in chunks gives the same logits, whether padding is inert, whether the declared parameters, FLOPs and state
    bytes are those that are found, and so on; for a task, whether the same arguments give the same batch, whether an
    evaluation repeats, and so on. A clause that says nothing as long as another one fails, whose reason it would fail
    for, is "not reached". A plugin may declare clauses that it does not fulfil (`exemptions`); they are shown with its
    reason. What the plugin prints is counted, and the end of it shown for clauses that fail.

    Exit code 0: every clause is fulfilled or declared. 1: a clause fails. 2: there is no such plugin, preset or clause.

    The same from pytest: seqbench.testing.check_model_plugin and check_task_plugin.
    """
    from seqbench.testing import examine_model_plugin, examine_task_plugin

    if (kind or _kind_of(name)) == "task":
        if kernels is not None:
            raise RequestError(f"--kernels is for models, and {name} is a task; leave it out")
        report = examine_task_plugin(
            name, preset=preset, clauses=clauses or None, changes=_of_task(parse_changes(changes))
        )
    elif changes:
        raise RequestError(f"--set changes fields of a task, and {name} is a model; name one of its presets")
    else:
        import torch

        from seqbench.plugins.kernels import asked_paths, check_request, requested_paths

        if kernels is not None:
            tell_broken_kernels()
        paths = asked_paths(kernels)
        check_request(paths, torch.device("cpu"))
        with requested_paths(paths):
            report = examine_model_plugin(name, preset=preset, clauses=clauses or None)
    tracebacks = click.get_current_context().params["traceback"]
    if as_json:
        click.echo(json.dumps(_as_data(report), indent=2))
    else:
        _print(report, tracebacks)
    sys.exit(EXIT_FAILED if report.failures else 0)


def _of_task(changes: dict[str, str]) -> dict[str, str]:
    for key in changes:
        if not key.startswith("task."):
            raise RequestError(f"--set {key}: a check changes fields of the task alone; type task.FIELD=VALUE")
    return {key.removeprefix("task."): value for key, value in changes.items()}


def _kind_of(name: str) -> str:
    """Whether `name` is a model or a task. Raises RequestError for a name that is neither, or both."""
    from importlib.metadata import entry_points

    from seqbench.contracts.suggestions import did_you_mean
    from seqbench.plugins.registry import MODEL_GROUP, TASK_GROUP

    models, tasks = entry_points(group=MODEL_GROUP).names, entry_points(group=TASK_GROUP).names
    base = name.partition(":")[0]
    if name in tasks and base in models:
        raise RequestError(f"{name!r} is a model and a task: type --kind model or --kind task")
    if name in tasks or base in models:
        return "task" if name in tasks else "model"
    if not any(mark in name for mark in ".:"):
        raise RequestError(
            f"unknown name {name!r}{did_you_mean(name, [*models, *tasks])}\n"
            f"installed models: {', '.join(sorted(models)) or 'none'}; tasks: {', '.join(sorted(tasks)) or 'none'};"
            " or give a dotted path package.module:Class"
        )
    return _kind_of_path(name)


def _kind_of_path(path: str) -> str:
    """The kind of a dotted path. Of one that leads nowhere a model, whose lookup says what is wrong."""
    import pydoc

    from seqbench.contracts import ModelPlugin, TaskPlugin

    try:
        found: Any = pydoc.locate(path.replace(":", "."))
    except pydoc.ErrorDuringImport:
        return "model"
    if isinstance(found, type) and not issubclass(found, ModelPlugin | TaskPlugin):
        raise RequestError(f"{path} is neither a ModelPlugin nor a TaskPlugin of seqbench.contracts")
    return "task" if isinstance(found, type) and issubclass(found, TaskPlugin) else "model"


def _as_data(report: "Report") -> dict[str, Any]:
    return {
        "name": report.name,
        "kind": report.kind,
        "preset": report.preset,
        "passed": not report.failures,
        "clauses": [dataclasses.asdict(outcome) for outcome in report.outcomes],
    }


def _print(report: "Report", tracebacks: bool) -> None:
    shown = console()
    shown.print(f"[bold]{escape(visible(report.name))}[/bold], {report.kind}, preset {escape(visible(report.preset))}")
    rows = []
    for outcome in report.outcomes:
        style = _COLOURS[outcome.state] if outcome.message else "dim"
        rows.append(Row((outcome.clause, outcome.state, outcome.message or outcome.rule), style))
    shown.print(Sheet("", ("clause", "", "what was found, or the rule that is kept"), rows, left=(0, 1), prose=(2,)))
    for outcome in report.failures:
        for line in _explanation(outcome, tracebacks):
            shown.print(visible(f"{outcome.clause}: {line}"), markup=False, highlight=False, soft_wrap=True)
    failed = ", ".join(outcome.clause for outcome in report.failures)
    missed = f"; {len(report.not_reached)} were not reached" if report.not_reached else ""
    shown.print(
        f"{len(report.failures)} of {len(report.outcomes)} clauses fail{f': {failed}' if failed else ''}{missed}"
    )
    if report.printed_lines:
        shown.print(f"the plugin printed {report.printed_lines} lines, which are not shown here; --json has them")
    if not tracebacks and any(outcome.traceback for outcome in report.failures):
        shown.print("the same command with --traceback shows where errors were raised")


def _explanation(outcome: "Outcome", tracebacks: bool) -> list[str]:
    """What is said of a failure under the table: its usual cause, the author's line, the end of what was printed."""
    lines = [outcome.hint, f"at {outcome.place}" if outcome.place else "", outcome.traceback if tracebacks else ""]
    lines += [f"printed: {line}" for line in outcome.output.splitlines()[-_LAST_LINES:]]
    return [line for line in lines if line]
