"""The command group, and how errors reach the user."""

import json
import os
import sys
import warnings
from contextlib import suppress
from typing import Any

import click

import seqbench
from seqbench.errors import EXIT_BROKEN_PIPE, EXIT_FAILED, RequestError
from seqbench.surroundings.cache_folders import provide_cache_folders
from seqbench.surroundings.circumstances import circumstance_of
from seqbench.surroundings.stopping import Stopped, end_children, farewell
from seqbench.surroundings.variables import hidden_names, hidden_variables
from seqbench.surroundings.visible import visible

# Seconds that processes have to end which a plugin has started and left behind.
_PATIENCE_SECONDS = 2.0


class _NobodyReads(Exception):
    """Standard output was closed by the program that read it; click would make exit code 1 of a BrokenPipeError."""


class LazyGroup(click.Group):
    """Subcommands are imported when they are used: torch takes seconds to import, `--help` should not."""

    _modules = {  # noqa: RUF012 (a class-level table)
        "check": "seqbench.cli.check:check",
        "compare": "seqbench.cli.compare:compare",
        "list": "seqbench.cli.listing:list_plugins",
        "new": "seqbench.cli.new:new",
        "run": "seqbench.cli.run:run",
        "runs": "seqbench.cli.runs:list_runs",
        "show": "seqbench.cli.show:show",
        "speed": "seqbench.cli.speed:speed",
        "verify": "seqbench.cli.verify:verify",
    }

    def list_commands(self, context: click.Context) -> list[str]:
        """Names of the subcommands."""
        del context
        return list(self._modules)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The subcommand, imported now."""
        if name not in self._modules:
            return None
        import importlib

        module, attribute = self._modules[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def invoke(self, context: click.Context) -> Any:
        """Run the subcommand."""
        try:
            result = super().invoke(context)
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise _NobodyReads from error
        return result

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the nearest names for an unknown subcommand."""
        from seqbench.contracts.suggestions import did_you_mean

        if arguments and not arguments[0].startswith("-") and arguments[0] not in self._modules:
            raise click.UsageError(
                f"no command {arguments[0]!r}{did_you_mean(arguments[0], self._modules)}"
                f"\ncommands: {', '.join(self._modules)}"
            )
        return super().resolve_command(context, arguments)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(seqbench.__version__, prog_name="bench")
def bench() -> None:
    """Train and test sequence-model architectures on the same data, and say who is ahead."""


def main() -> None:
    """Carry out the command that was typed."""
    _look_here_last()
    # transformers draws a bar for every file it reads or writes; a run has its own.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    provide_cache_folders(os.environ)
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    # Kernels that transformers would fetch at run time are in nobody's record.
    os.environ["USE_HUB_KERNELS"] = "NO"
    ignored = hidden_names()
    if ignored:
        click.echo(f"bench: not followed, in the environment: {', '.join(ignored)}; options say how to train", err=True)
    try:
        with hidden_variables():
            code = bench.main(prog_name="bench", standalone_mode=False)
    except click.ClickException as error:
        if "--json" in sys.argv:
            with suppress(OSError):
                click.echo(json.dumps({"status": RequestError.status, "message": error.format_message()}))
        error.show()
        code = error.exit_code
    except Stopped as stopped:
        code = _say_farewell(stopped)
    except click.Abort:
        with suppress(OSError):
            click.echo("bench: the question was not answered, and nothing was done", err=True)
        code = EXIT_FAILED
    except _NobodyReads:
        # Whoever reads has had enough. What is left in the buffer must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_BROKEN_PIPE
    except (OSError, ImportError, MemoryError) as error:
        # Before a command has begun: its own modules could not be loaded.
        circumstance = circumstance_of(error)
        if circumstance is None or "--traceback" in sys.argv:
            raise
        with suppress(OSError):
            print(f"bench: {circumstance}", file=sys.stderr)
        code = EXIT_FAILED
    sys.exit(code if isinstance(code, int) else 0)


def _say_farewell(stopped: Stopped) -> int:
    """Tell how to go on, leave no process behind, and return the exit code."""
    with suppress(OSError):
        click.echo(visible(farewell(stopped.number, stopped.kept)), err=True)
    end_children(_PATIENCE_SECONDS)
    try:
        sys.stdout.flush()
    except OSError:
        # The terminal is closed. What is left in the buffer must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + stopped.number


def _look_here_last() -> None:
    """Have modules of the working folder found, such as my_module:MyModel, but none in the place of an installed one.

    A file torch.py that happens to lie where a command is typed is not the package of that name.
    """
    try:
        here = os.getcwd()
    except FileNotFoundError:
        # A folder that was removed holds no modules.
        return
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    # `python -m` puts the folder first; PYTHONPATH is somebody's wish.
    sys.path[:] = [place for place in sys.path if place in named or place not in ("", here)]
    if here not in sys.path:
        sys.path.append(here)
