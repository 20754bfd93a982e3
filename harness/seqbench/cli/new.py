"""`bench new`: a package with a working plugin to start from."""

import shlex
from pathlib import Path

import click

from seqbench.cli.command import Command
from seqbench.cli.console import say
from seqbench.cli.options import friendly_errors


@click.command(cls=Command)
@click.argument("kind", type=click.Choice(["model", "task"]))
@click.argument("name")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    default=Path("."),
    show_default=True,
    help="Folder that the package's own folder NAME is made in.",
)
@friendly_errors
def new(kind: str, name: str, into: Path) -> None:
    """Write a small package with a working model or task that passes `bench check`, to be changed into your own.

    NAME is what --model or --task will take once the package is installed, such as my-model.
    """
    from seqbench.scaffold import choose_names, write_package

    names = choose_names(kind, name)
    for path in write_package(names, into):
        say(f"wrote {path}")
    other = "--task TASK" if kind == "model" else "--model MODEL"
    say(
        f"""
try it from its folder:
    cd {shlex.quote(str(into / name))}
    bench check {names.dotted_path}
    bench run --{kind} {names.dotted_path} {other}

`bench list` names the {"tasks" if kind == "model" else "models"}. To use it from anywhere, by its name:
    pip install -e .
    bench run --{kind} {name} {other}"""
    )
