"""A command that is done as it is typed, or refused: nothing in it is overruled in silence by something else in it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
from click.core import ParameterSource


class Command(click.Command):
    """A command of `bench`.

    Refused, with what to type instead: an option of one value that is given twice with different ones, an empty value,
    and an option that means nothing beside, or without, another one.

    Args:
        lists: options whose value is a list of names; behind them names may stand one by one, separated by spaces.
        needs: option -> the option without which it means nothing.
        excludes: option -> options that mean nothing beside it.
    """

    def __init__(
        self,
        *arguments: Any,
        lists: Sequence[str] = (),
        needs: Mapping[str, str] | None = None,
        excludes: Mapping[str, Sequence[str]] | None = None,
        **others: Any,
    ) -> None:
        super().__init__(*arguments, **others)
        self._lists, self._needs, self._excludes = lists, needs or {}, excludes or {}

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        """As click does it, of what is neither empty nor contradicts itself."""
        _refuse_empty(arguments)
        arguments = _joined(self.translated(arguments), self._lists)
        self._refuse_two_values(context, arguments)
        rest = super().parse_args(context, arguments)
        if not context.resilient_parsing:
            self._refuse_meaningless(context)
        return rest

    def translated(self, arguments: list[str]) -> list[str]:
        """The arguments in the command's own options; as they are, as it stands."""
        return arguments

    def _refuse_two_values(self, context: click.Context, arguments: list[str]) -> None:
        """Raise click.UsageError for an option of one value that has two."""
        parser = self.make_parser(context)
        single = [each for each in self.params if isinstance(each, click.Option) and _has_one_value(each)]
        for option in single:
            # Instead of keeping the last value.
            parser.add_option(obj=option, opts=option.opts, dest=option.name, action="append", nargs=option.nargs)
        given, _, _ = parser.parse_args(args=list(arguments))
        for option in single:
            values = list(dict.fromkeys(_said(value) for value in given.get(option.name or "", ())))
            if len(values) > 1:
                name = option.opts[0]
                raise click.UsageError(
                    f"{name} is given {len(values)} times, as {' and '.join(values)}; type it once", context
                )

    def _refuse_meaningless(self, context: click.Context) -> None:
        given = {
            option.opts[0]
            for option in self.params
            if context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        }
        for name, needed in self._needs.items():
            if name in given and needed not in given:
                raise click.UsageError(
                    f"{name} means nothing without {needed}; add {needed}, or leave {name} out", context
                )
        for name, others in self._excludes.items():
            beside = next((other for other in others if other in given), None)
            if name in given and beside is not None:
                raise click.UsageError(f"{beside} means nothing beside {name}; leave one of them out", context)


def _has_one_value(option: click.Option) -> bool:
    return not (option.multiple or option.is_flag or option.count or option.nargs != 1)


def _said(value: Any) -> str:
    # Click has a mark of its own for an option that may stand without a value.
    return value if isinstance(value, str) else "nothing"


def _refuse_empty(arguments: Iterable[str]) -> None:
    """Raise click.UsageError for an empty value: a path would be the working folder, a text mean nothing."""
    before = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not argument.strip():
            place = before if before.startswith("-") else "an argument"
            raise click.UsageError(f"{place} is empty; type a value, or leave it out")
        if argument.startswith("--") and equals and not value.strip():
            raise click.UsageError(f"{name} is empty; type a value, or leave it out")
        before = argument


def _joined(arguments: Sequence[str], lists: Sequence[str]) -> list[str]:
    """`--models a b, c` as `--models a,b,c`, for the options in `lists` of a command without arguments of its own."""
    joined: list[str] = []
    collecting = filled = False
    for argument in arguments:
        if argument.startswith("-"):
            collecting = argument.partition("=")[0] in lists
            filled = "=" in argument
            joined.append(argument)
        elif collecting and filled:
            joined[-1] = f"{joined[-1].rstrip(',')},{argument}"
        else:
            joined.append(argument)
            filled = True
    return joined
