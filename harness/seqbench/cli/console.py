"""Where the commands print tables."""

import os

import click
from rich.console import Console

from seqbench.surroundings.visible import visible

# Columns of a table that goes to a file or a pipe: the widest table of a comparison in one line a row.
FILE_WIDTH = 200


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command line, which ends quietly; rich would exit with 1."""
        raise BrokenPipeError


def console(stderr: bool = False) -> Console:
    """A console as wide as the terminal; elsewhere as COLUMNS says, or FILE_WIDTH."""
    made = _Console(stderr=stderr)
    return made if made.is_terminal or "COLUMNS" in os.environ else _Console(stderr=stderr, width=FILE_WIDTH)


def say(text: str, err: bool = False) -> None:
    """A line on standard output, or on standard error, in which names cannot steer the terminal."""
    click.echo(visible(text), err=err)
