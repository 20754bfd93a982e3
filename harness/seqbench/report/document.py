"""Tables and lines that know nothing of what they say, and their two forms: for the terminal and as Markdown."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from seqbench.report.columns import Column, spread, wrapped
from seqbench.surroundings.visible import visible

# With more columns than this, the room between them is always halved.
_ROOMY_COLUMNS = 8
# Places between two columns: with room to breathe, and where that lets a table stay in one piece.
_ROOMY, _TIGHT = 3, 2


@dataclass(frozen=True)
class Row:
    """One row: its cells, a style of rich for all of them, and whether a rule follows."""

    cells: tuple[str, ...]
    style: str = ""
    ends_section: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "cells", tuple(map(visible, self.cells)))


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        title: above it; may be empty.
        headings: one a column.
        rows: from top to bottom, each with as many cells as there are headings.
        left: columns that begin at the left; numbers stand at the right.
        names: how many of the first columns say what a row is of.
        prose: columns of words, whose cells may be broken at spaces; names and numbers are never broken.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Row]
    left: tuple[int, ...] = (0,)
    names: int = 1
    prose: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", visible(self.title))
        object.__setattr__(self, "headings", tuple(map(visible, self.headings)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table for a terminal. What is too wide goes on below, with the first columns again."""
        # Above the table and not in it, where it would be folded to the table's width.
        if self.title:
            yield Text(self.title, style="italic")
        for numbers in self._numbers_within(options.max_width):
            yield self._table(numbers, options.max_width)

    def _columns(self) -> list[Column]:
        return [
            Column(heading, [row.cells[number] for row in self.rows], number in self.prose)
            for number, heading in enumerate(self.headings)
        ]

    def _table(self, numbers: Sequence[int], width: int) -> Table:
        """A table of the columns with these numbers. What no width fits is folded, not cut: names that differ at their
        end stay apart.
        """
        columns = [self._columns()[number] for number in numbers]
        fits_roomy = len(columns) <= _ROOMY_COLUMNS and _needed(columns, _ROOMY) <= width
        gap = _ROOMY if fits_roomy else _TIGHT
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1) if fits_roomy else (0, 1, 0, 0))
        widths = spread(columns, width - _needed([], gap) - gap * len(columns))
        for number, column, room in zip(numbers, columns, widths, strict=True):
            justify = "left" if number in self.left or column.is_prose else "right"
            table.add_column(Text(wrapped(column.heading, room)), justify=justify, overflow="fold")  # type: ignore[arg-type]
        for row in self.rows:
            cells = [
                Text(wrapped(row.cells[number], room) if column.is_prose else row.cells[number])
                for number, column, room in zip(numbers, columns, widths, strict=True)
            ]
            table.add_row(*cells, style=row.style or None, end_section=row.ends_section)
        return table

    def _numbers_within(self, width: int) -> list[list[int]]:
        """The numbers of each table's columns: of one table when all fit, else none is wider than `width` unless one
        column beside the names is.
        """
        columns = self._columns()
        if _needed(columns, _TIGHT) <= width:
            return [list(range(len(columns)))]
        names = list(range(self.names))
        tables: list[list[int]] = []
        for number in range(self.names, len(columns)):
            if not tables or _needed([columns[each] for each in (*tables[-1], number)], _TIGHT) > width:
                tables.append(list(names))
            tables[-1].append(number)
        return tables or [names]

    def markdown(self) -> str:
        """The table as Markdown, under its title."""
        rules = [":---" if number in self.left + self.prose else "---:" for number in range(len(self.headings))]
        lines = [_line(map(_escaped, self.headings)), _line(rules)]
        lines += [_line(map(_escaped, row.cells)) for row in self.rows]
        title = f"### {_escaped(self.title)}\n\n" if self.title else ""
        return title + "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Line:
    """A line of text in one style of rich."""

    text: str
    style: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", visible(self.text))

    def __rich__(self) -> RenderableType:
        """The line for a terminal."""
        return Text(self.text, style=self.style)

    def markdown(self) -> str:
        """The line as an entry of a list."""
        return f"- {_escaped(self.text)}\n"


@dataclass(frozen=True)
class Document:
    """Tables and lines in order.

    Attributes:
        parts: what is shown.
        data: what is stored beside the results, plain data by name.
    """

    parts: Sequence[Sheet | Line]
    data: Mapping[str, Any] = field(default_factory=dict)

    def __rich__(self) -> RenderableType:
        """All of it for a terminal."""
        shown: list[RenderableType] = []
        for before, part in zip([None, *self.parts], self.parts, strict=False):
            # Tables end with an empty line of their own.
            shown += [""] if isinstance(before, Line) and isinstance(part, Sheet) and part.title else []
            shown.append(part)
        return Group(*shown)

    def markdown(self) -> str:
        """All of it as Markdown: an empty line between parts, none within a list."""
        text = ""
        for before, part in zip([None, *self.parts], self.parts, strict=False):
            together = isinstance(before, Line) and isinstance(part, Line)
            text += ("" if before is None or together else "\n") + part.markdown()
        return text


def _needed(columns: Sequence[Column], gap: int) -> int:
    """The least width of a table of these columns, its edges included."""
    return sum(column.least + gap for column in columns) + 1


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """`text` without what Markdown takes for a sign of its own; underscores inside words are none."""
    return re.sub(r"([\\|*`]|<(?=[A-Za-z/!?]))", r"\\\1", text)
