"""`bench speed`: time and memory of models, or of operations, side by side."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seqbench.cli.command import Command
from seqbench.cli.console import FILE_WIDTH, console, say
from seqbench.cli.numbers import LARGEST_BATCH, LARGEST_LENGTH, LARGEST_SECONDS, Amount, Count
from seqbench.cli.options import friendly_errors, parse_changes, parse_names
from seqbench.errors import EXIT_FAILED, RequestError
from seqbench.planning.request import DEVICES, PRECISIONS
from seqbench.surroundings.stopping import Stopped, answer_noted, keeping
from seqbench.surroundings.variables import LARGEST_THREADS, refuse_variables

if TYPE_CHECKING:
    from seqbench.speed.session import Session

_ALL = "all"
_LISTS = ("--models", "--kernels", "--lengths", "--modes")
# Options that say nothing of operations.
_OF_MODELS = (
    *("--models", "--lengths", "--modes", "--preset", "--set", "--params", "--params-total", "--allow-unmatched"),
    *("--batch-size", "--precision", "--compile"),
)


@click.command(cls=Command, lists=_LISTS, excludes={"--kernels": _OF_MODELS})
@click.option(
    "--models",
    help="Models, by commas or spaces; the first is the one that the others are set in relation to. MODEL@reference"
    " takes that path of every operation, MODEL@OPERATION=PATH+OPERATION=PATH those of some.",
)
@click.option(
    "--kernels",
    "operations",
    is_flag=False,
    flag_value=_ALL,
    metavar="[NAMES]",
    help="Instead of models: every path of these operations, separated by commas or spaces, or of all.",
)
@click.option(
    "--lengths",
    default="1k,4k,16k",
    show_default=True,
    help="Tokens of a sequence, positions for decode; separated by commas or spaces. 1k is 1,000.",
)
@click.option("--modes", default="train,prefill,decode", show_default=True, help="What to measure.")
@click.option("--preset", "presets", multiple=True, metavar="NAME", help="Preset of the models.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a documented field of all models, model.FIELD, or of one, NAME.FIELD; may be repeated.",
)
@click.option("--params", "parameters", type=Count(), help="Size every model to this many parameters, such as 200k.")
@click.option("--params-total", "parameters_total", type=Count(), help="The same, vocabulary matrices included.")
@click.option(
    "--allow-unmatched", is_flag=True, help="Measure a model too whose size misses --params by more than 2 %."
)
@click.option(
    "--batch-size", type=Count(most=LARGEST_BATCH), default=1, show_default=True, help="Sequences side by side."
)
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Where to compute.")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="fp32",
    show_default=True,
    help="bf16 computes matrix products in bfloat16 and keeps fp32 weights.",
)
@click.option("--threads", type=Count(most=LARGEST_THREADS), help="Threads on the CPU.  [default: torch's choice]")
@click.option(
    "--repeats", type=Count(most=100_000), default=5, show_default=True, help="Rounds in which all take turns."
)
@click.option("--compile", "compiled", is_flag=True, help="Put models through torch.compile; compiling is not timed.")
@click.option(
    "--time-limit",
    type=Amount(LARGEST_SECONDS),
    default=600.0,
    show_default=True,
    help="Seconds that one model may take at one length and mode by estimate; what would take more is not run.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the content of speed.json instead of tables.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Folder of tables, data and plot.  [default: runs/speed/<time>]"
)
@friendly_errors
def speed(as_json: bool, output: Path | None, **options: Any) -> None:
    """Measure time and memory of models, or of operations, side by side.

    Training passes (gradients without an optimizer), prefill, and single tokens at a position. All take turns in every
    round; the device's own peaks are measured in the same run. Ctrl-C keeps what was measured. docs/speed.md says how
    to read every column.
    """
    # Read where torch is imported: its profiler, which follows memory on the CPU, tells of every pass otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if (options["models"] is None) == (options["operations"] is None):
        raise RequestError(
            "give --models with names separated by commas or spaces, or --kernels; `bench list models` shows them"
        )
    session, folder = _measure(options, output)
    with keeping(lambda: f"what was measured is in {folder}"):
        _print(session, folder, as_json)
        answer_noted()
    if any(record.state == "failed" for record in session.records):
        sys.exit(EXIT_FAILED)


def _measure(options: dict[str, Any], output: Path | None) -> tuple["Session", Path]:
    from seqbench.environment import describe_environment, tune_allocator, use_threads

    tune_allocator()
    use_threads(options["threads"])
    from seqbench.cli.grid import require_writable
    from seqbench.planning.plan import choose_device
    from seqbench.speed.display import SpeedDisplay
    from seqbench.speed.session import Session
    from seqbench.store.files import write_json

    refuse_variables()
    device = choose_device(options["device"])
    measured, header, cells = _operations(options) if options["models"] is None else _models(options, device)
    folder = output or Path("runs/speed") / time.strftime("%Y%m%d-%H%M%S")
    require_writable(folder)
    header = {
        "schema": 1,
        **header,
        "repeats": options["repeats"],
        "precision": options["precision"],
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "environment": describe_environment(device, os.environ.get("SEQBENCH_KERNELS", "")),
    }
    with SpeedDisplay(cells, options["repeats"]) as display:

        def store(content: dict[str, Any]) -> None:
            write_json(folder / "speed.json", content)

        session = Session(header, device, options["repeats"], display, store)
        with keeping(lambda: f"what was measured is in {folder}"):
            try:
                measured(session)
            except Stopped:
                session.interrupted()
    return session, folder


def _models(options: dict[str, Any], device: Any) -> tuple[Any, dict[str, Any], int]:
    """What measures the models that were asked for, the request as plain data, and the number of cells."""
    from seqbench.accounting.size_budget import ParameterBudget
    from seqbench.plugins.kernels import check_request
    from seqbench.speed.failures import room
    from seqbench.speed.models import Conditions
    from seqbench.speed.passes import MODES
    from seqbench.speed.subjects import find_subjects, require_weights

    modes = _chosen("mode", parse_names(options["modes"]), MODES)
    lengths = _lengths(options["lengths"])
    names = parse_names(options["models"])
    if not names:
        raise RequestError(
            "--models takes names separated by commas or spaces; `bench list models` shows what is installed"
        )
    if options["parameters"] is not None and options["parameters_total"] is not None:
        raise RequestError("give --params or --params-total, not both")
    target = options["parameters"] or options["parameters_total"]
    budget = None if target is None else ParameterBudget(target, total=options["parameters"] is None)
    changes = parse_changes(options["changes"])
    subjects = find_subjects(names, options["presets"], changes, budget, options["allow_unmatched"])
    if options["compiled"] and len({subject.paths for subject in subjects}) > 1:
        # A graph keeps the paths that it was traced with, and models of one shape share graphs.
        raise RequestError("--compile takes one choice of paths for all models; give each choice a command of its own")
    for subject in subjects:
        check_request(subject.paths or "", device)
    require_weights(subjects, room(device), 2 if "train" in modes else 1)
    conditions = Conditions(
        modes=modes,
        lengths=lengths,
        batch_size=options["batch_size"],
        device=device,
        precision=options["precision"],
        compiled=options["compiled"],
        repeats=options["repeats"],
        time_limit=options["time_limit"],
    )
    header = {
        "kind": "models",
        "modes": modes,
        "lengths": lengths,
        "batch_size": options["batch_size"],
        "compiled": options["compiled"],
        "time_limit": options["time_limit"],
        "presets": list(options["presets"]),
        "changes": changes,
        "parameter_target": target,
    }
    cells = len(subjects) * len(modes) * len(lengths)
    return lambda session: session.measure_models(subjects, conditions), header, cells


def _operations(options: dict[str, Any]) -> tuple[Any, dict[str, Any], None]:
    """As `_models`, for operations."""
    from seqbench.speed.operations import find_operations

    names = [] if options["operations"] == _ALL else parse_names(options["operations"])
    operations = find_operations(names)
    header = {"kind": "operations", "time_limit": options["time_limit"]}
    return lambda session: session.measure_operations(operations, options["time_limit"]), header, None


def _lengths(text: str) -> list[int]:
    """Lengths in ascending order. Raises RequestError for what is no number."""
    lengths = []
    for word in parse_names(text):
        try:
            lengths.append(int(Count(most=LARGEST_LENGTH).convert(word, None, None)))
        except click.BadParameter as error:
            raise RequestError(f"--lengths {text}: {error.message}") from error
    if not lengths:
        raise RequestError("--lengths takes numbers of tokens separated by commas or spaces, such as 1k,4k,16k")
    return sorted(set(lengths))


def _chosen(kind: str, names: list[str], known: tuple[str, ...]) -> list[str]:
    from seqbench.contracts.suggestions import did_you_mean

    for name in names:
        if name not in known:
            raise RequestError(f"unknown {kind} {name!r}{did_you_mean(name, known)}\n{kind}s: {', '.join(known)}")
    if not names:
        raise RequestError(f"--{kind}s takes names separated by commas or spaces: {', '.join(known)}")
    return list(dict.fromkeys(names))


def _print(session: "Session", folder: Path, as_json: bool) -> None:
    import io
    import json

    from rich.console import Console

    from seqbench.report.speed_plot import plot_speed
    from seqbench.report.speed_table import speed_report
    from seqbench.store.files import finite, write_text

    content = finite(session.content())
    document = speed_report(content)
    recorder = Console(record=True, width=FILE_WIDTH, file=io.StringIO())
    recorder.print(document)
    write_text(folder / "table.txt", recorder.export_text())
    write_text(folder / "table.md", document.markdown())
    drawn = [path for path in (folder / "plot.png", folder / "plot.svg") if plot_speed(content, path)]
    if as_json:
        click.echo(json.dumps(content, indent=2))
        return
    console().print(document)
    say(f"tables and data: {folder}" + (f"   plot: {drawn[0]}" if drawn else ""))
