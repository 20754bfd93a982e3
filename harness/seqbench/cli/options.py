"""Options that several commands share, and what the commands do with errors."""

import errno
import functools
import json
import os
import sys
import traceback as traceback_module
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seqbench.cli.console import say
from seqbench.cli.numbers import LARGEST_RATE, LARGEST_SECONDS, Amount, Count
from seqbench.errors import EXIT_FAILED, EXIT_WRONG_REQUEST, Circumstance, RequestError, RunFailure
from seqbench.planning.changes import trainer_field
from seqbench.planning.request import DEVICES, PRECISIONS, RunRequest
from seqbench.surroundings.circumstances import circumstance_of
from seqbench.surroundings.variables import LARGEST_THREADS

if TYPE_CHECKING:
    from seqbench.planning.plan import RunPlan

Command = Callable[..., Any]


kernels_option = click.option(
    "--kernels",
    metavar="REQUEST",
    help="Paths that kernels are to take: `reference` for all that have it, or OPERATION=PATH,OPERATION=PATH."
    "  [default: the environment variable SEQBENCH_KERNELS, else the best path for the device]",
)


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
        kernels_option,
        click.option(
            "--compile",
            "compiled",
            is_flag=True,
            help="Put training steps through torch.compile; compiling is not timed, and told in the result.",
        ),
        click.option(
            "--threads",
            type=Count(most=LARGEST_THREADS),
            help="Threads of each run on the CPU.  [default: torch's choice; runs side by side share the cores]",
        ),
        click.option(
            "--params",
            "parameters",
            type=Count(),
            help="Size every model to this many parameters outside the vocabulary matrices, such as 200k, by its width"
            " axis at the depth of its preset.",
        ),
        click.option(
            "--params-total", "parameters_total", type=Count(), help="The same, vocabulary matrices included."
        ),
        click.option(
            "--allow-unmatched",
            is_flag=True,
            help="Run a model too whose size misses --params by more than 2 %; every table then marks it.",
        ),
        click.option(
            "--allow-unchecked",
            is_flag=True,
            help="Run a model too that reads the future, or fails another clause of `bench check` that scores rest on;"
            " every table then marks it.",
        ),
        click.option("--steps", type=Count(0), help="Train for this many optimizer steps; short for --set steps=N."),
        click.option(
            "--lr", "learning_rate", type=Amount(LARGEST_RATE), help="Peak learning rate; short for --set lr=X."
        ),
        click.option("--tokens", type=Count(), help="Train for this many tokens instead of the trainer's steps."),
        click.option(
            "--flops", type=Count(most=10**30), help="Train for this many FLOPs of matrix products, such as 1e13."
        ),
        click.option(
            "--seconds",
            type=Amount(LARGEST_SECONDS),
            help="Train for this long; warm-up, compilation and evaluation are not counted.",
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


def shared_request(model: str, seed: int, options: dict[str, Any], **others: Any) -> RunRequest:
    """The request that the shared options of a command, those of `run_options`, describe."""
    budgets = {kind: options[kind] for kind in ("tokens", "flops", "seconds") if options[kind] is not None}
    if len(budgets) > 1:
        raise RequestError(
            f"give one of --{' and --'.join(budgets)}: one budget ends training, the others are reported"
        )
    kind, target = next(iter(budgets.items()), (None, None))
    if options["kernels"] is not None:
        tell_broken_kernels()
    return RunRequest(
        model,
        options["task"],
        presets=options["presets"],
        changes=_trainer_changes(options),
        seed=seed,
        device=options["device"],
        precision=options["precision"],
        parameters=options["parameters"],
        parameters_total=options["parameters_total"],
        allow_unmatched=options["allow_unmatched"],
        allow_unchecked=options["allow_unchecked"],
        budget_kind=kind,
        budget_target=target,
        kernels=options["kernels"],
        threads=options["threads"],
        compiled=options["compiled"],
        **others,
    )


def tell_remarks(plans: "Iterable[RunPlan]") -> None:
    """Say what was decided for the user, once for all plans that it was decided for."""
    for remark in dict.fromkeys(remark for plan in plans for remark in plan.remarks):
        say(f"bench: {remark}", err=True)


def tell_broken_kernels() -> None:
    """Name the announced kernels that cannot be used, for whoever asks for paths."""
    from seqbench.plugins.kernels import broken_operations

    for broken in broken_operations():
        say(f"bench: kernel {broken.name} ({broken.target}) is broken: {broken.reason}", err=True)


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
            _report(error, traceback, options, {"status": error.status})
            sys.exit(EXIT_WRONG_REQUEST)
        except Exception as error:
            # Click knows what to do when nobody reads on.
            if isinstance(error, click.ClickException | click.exceptions.Exit | click.Abort | BrokenPipeError):
                raise
            if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
                # Whatever option it came from: no file can have it.
                refusal = RequestError(f"{error.filename}: {error.strerror}; type a shorter name")
                _report(refusal, traceback, options, {"status": refusal.status})
                sys.exit(EXIT_WRONG_REQUEST)
            circumstance = circumstance_of(error)
            if circumstance is None:
                _report(error, traceback, options, {"status": "error"})
            else:
                known = {"status": circumstance.status, "reason": circumstance.reason, "detail": circumstance.detail}
                _report(circumstance, traceback, options, known)
            sys.exit(EXIT_FAILED)

    return wrapped


def parse_changes(changes: tuple[str, ...]) -> dict[str, str]:
    """`KEY=VALUE` texts as a mapping.

    Raises RequestError for one without "=", one with nothing behind it, and a key that is given two values.
    """
    parsed: dict[str, str] = {}
    for change in changes:
        key, equals, value = (part.strip() for part in change.partition("="))
        if not equals or not key:
            raise RequestError(f"--set takes KEY=VALUE, for example --set steps=100, not {change!r}")
        if not value:
            raise RequestError(f"--set {key} has no value; type --set {key}=VALUE, or leave it out")
        if parsed.get(key, value) != value:
            raise RequestError(f"--set {key} is given twice, as {parsed[key]} and {value}; type it once")
        parsed[key] = value
    return parsed


def parse_names(text: str) -> list[str]:
    """Names separated by commas or spaces; spaces in what is a path belong to it."""
    names = (name.strip() for name in text.split(","))
    return [word for name in names for word in ([name] if os.sep in name else name.split()) if word]


def _trainer_changes(options: dict[str, Any]) -> dict[str, str]:
    """What --set changes, with --steps and --lr. Raises RequestError when both say something of one field."""
    changes = parse_changes(options["changes"])
    for option, field in (("--steps", "steps"), ("--lr", "learning_rate")):
        value = options[field]
        if value is None:
            continue
        other = next((key for key in changes if trainer_field(key) == field), None)
        if other is not None:
            raise RequestError(f"{option} {value} and --set {other}={changes[other]} are the same field; give it once")
        changes[field] = f"{value}"
    return changes


def _report(error: Exception, traceback: bool, options: dict[str, Any], known: dict[str, str]) -> None:
    if traceback:
        traceback_module.print_exception(error)
    expected = isinstance(error, RequestError | RunFailure | Circumstance)
    message = str(error) if expected else f"{type(error).__name__}: {error}"
    if options.get("as_json"):
        # Where the output itself takes nothing, standard error still says why.
        with suppress(OSError):
            click.echo(json.dumps({**known, "message": message}))
    with suppress(OSError):
        say(f"bench: {message}", err=True)
        if not traceback and not expected:
            say("the same command with --traceback shows where", err=True)
