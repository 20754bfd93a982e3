"""`bench list`: what is installed."""

import json
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence

import click
from rich.console import Console
from rich.text import Text

from seqbench.cli.command import Command
from seqbench.cli.console import console
from seqbench.cli.inventory import Row, installed_plugins
from seqbench.cli.options import friendly_errors
from seqbench.contracts import MEMORY_KINDS, WRITING_RULES
from seqbench.errors import RequestError
from seqbench.surroundings.visible import visible

# A last column that has less room than this beside the others stands below them.
_NARROWEST = 24
_PRESET_INDENT = 4

Cells = Sequence[str]


@click.command("list", cls=Command)
@click.argument("what", type=click.Choice(["models", "tasks", "presets"]), required=False)
@click.option("--memory", type=click.Choice(MEMORY_KINDS), help="Only models with that kind of memory.")
@click.option("--written", type=click.Choice(WRITING_RULES), help="Only models whose memory is written in that way.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option("--verbose", is_flag=True, help="Show the traceback of broken plugins.")
@click.option("--reload", "renew", is_flag=True, help="Ask the plugins again instead of remembering what they said.")
@friendly_errors
def list_plugins(
    what: str | None, memory: str | None, written: str | None, as_json: bool, verbose: bool, renew: bool
) -> None:
    """List installed models, tasks or presets; models and tasks without an argument.

    "tasks" says of each what it measures, what its presets cost in training tokens, and to which published figure a
    preset corresponds; "presets" says what each is for. Broken plugins are listed with the reason.
    """
    kinds = {"models": ["model"], "tasks": ["task"]}.get(what or "", ["model", "task"])
    if (memory or written) and what != "models":
        raise RequestError("--memory and --written choose among models: type bench list models in front of them")
    rows = [row for kind in kinds for row in installed_plugins(kind, renew) if _is_of_kind(row, memory, written)]
    if not verbose:
        rows = [_without_tracebacks(row) for row in rows]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    details = {"tasks": _costs, "presets": _summaries}.get(what or "", _names)
    output = console()
    for kind in kinds:
        of_kind = [row for row in rows if row["kind"] == kind]
        if len(kinds) > 1:
            output.print(f"{kind}s", style="bold underline")
        _print_plugins(output, of_kind, details)


def _is_of_kind(row: Row, memory: str | None, written: str | None) -> bool:
    """Whether a model says of itself what is asked for; None asks for nothing."""
    said = row.get("classification", {"memory": (), "written": ()})
    return (memory is None or memory in said["memory"]) and (written is None or written in said["written"])


def _without_tracebacks(row: Row) -> Row:
    presets = {name: _bare(facts) for name, facts in row["presets"].items()}
    return {**_bare(row), "presets": presets}


def _bare(facts: Row) -> Row:
    return {key: value for key, value in facts.items() if key != "traceback"}


def _print_plugins(output: Console, rows: Sequence[Row], details: Callable[[Row], Iterator[Cells]]) -> None:
    """Each plugin's name and summary, `details` of its presets below, and the traceback of what is broken."""
    for row in rows:
        said = f"broken: {row['broken']}" if row["broken"] else row["summary"]
        lines = in_columns([(row["name"], said)], output.width)
        lines += in_columns(list(details(row)), output.width, _PRESET_INDENT)
        for number, line in enumerate(lines):
            text = Text(visible(line))
            text.stylize("bold", 0, 0 if number else len(row["name"]))
            output.print(text, soft_wrap=True)
        for broken in (row, *row["presets"].values()):
            if broken.get("traceback"):
                output.print(visible(broken["traceback"]), markup=False, highlight=False, soft_wrap=True)


def _names(row: Row) -> Iterator[Cells]:
    if row["presets"]:
        yield "presets:", ", ".join(row["presets"])


def _summaries(row: Row) -> Iterator[Cells]:
    for name, facts in row["presets"].items():
        yield name, facts["summary"]


def _costs(row: Row) -> Iterator[Cells]:
    for name, facts in row["presets"].items():
        yield name, facts["cost"], facts.get("broken") or facts["figure"]


def in_columns(rows: Sequence[Cells], width: int, indent: int = 0) -> list[str]:
    """Lines of `rows` in columns, the last one folded to `width`.

    All rows have the same number of cells. A line ends at a space, never inside a word and not before a number, which
    stays with what it counts or names: "figure 2". What is wider than its room sticks out.
    """
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in rows), strict=True)]
    beside = indent + sum(cell + 2 for cell in widths)
    hanging = beside if width - beside >= _NARROWEST else indent + _PRESET_INDENT
    lines: list[str] = []
    for row in rows:
        start = "  ".join(cell.ljust(room) for cell, room in zip(row[:-1], widths, strict=True))
        folded = _folded(row[-1], max(1, width - hanging))
        first = [" " * indent + start + "  " + folded.pop(0) if hanging == beside and folded else " " * indent + start]
        lines += [line.rstrip() for line in first] + [" " * hanging + line for line in folded]
    return lines


def _folded(text: str, width: int) -> list[str]:
    # No line ends at a no-break space.
    joined = re.sub(r" (?=\d)", "\N{NO-BREAK SPACE}", text)
    lines = textwrap.wrap(joined, width, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]
