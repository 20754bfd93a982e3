"""The command line: `bench`."""

from seqbench.cli.app import main

__all__ = ["main"]
