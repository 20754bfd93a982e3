"""Tables and lines that know nothing of what they say, and their two forms: for the terminal and as Markdown."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

# With more columns than this, the room between them is halved.
_ROOMY_COLUMNS = 8
# A table up to this much wider than the terminal is folded inside its cells; a wider one is cut into several.
_FOLDED = 1.25


@dataclass(frozen=True)
class Row:
    """One row: its cells, a style of rich for all of them, and whether a rule follows."""

    cells: tuple[str, ...]
    style: str = ""
    ends_section: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        title: above it; may be empty.
        headings: one a column.
        rows: from top to bottom, each with as many cells as there are headings.
        left: columns that begin at the left; numbers stand at the right.
        names: how many of the first columns say what a row is of.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Row]
    left: tuple[int, ...] = (0,)
    names: int = 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table for a terminal. What is too wide goes on below, with the first columns again."""
        # Above the table and not in it, where it would be folded to the table's width.
        if self.title:
            yield Text(self.title, style="italic")
        for columns in self._columns_within(options.max_width):
            yield self._table(columns)

    def _table(self, columns: Sequence[int]) -> Table:
        """A table of these columns. Cells are folded, not cut: names that differ at their end stay apart."""
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1) if self._roomy else (0, 1, 0, 0))
        for column in columns:
            justify = "left" if column in self.left else "right"
            table.add_column(Text(self.headings[column]), justify=justify, overflow="fold")  # type: ignore[arg-type]
        for row in self.rows:
            cells = [Text(row.cells[column]) for column in columns]
            table.add_row(*cells, style=row.style or None, end_section=row.ends_section)
        return table

    @property
    def _roomy(self) -> bool:
        return len(self.headings) <= _ROOMY_COLUMNS

    def _columns_within(self, width: int) -> list[list[int]]:
        """The columns of each table: of one when all fit well enough, else none is wider than `width` unless one column
        alone is.
        """
        texts = [[heading, *(row.cells[number] for row in self.rows)] for number, heading in enumerate(self.headings)]
        # Between two columns is a place beside their padding.
        widths = [max(map(cell_len, column)) + 2 + self._roomy for column in texts]
        if sum(widths) <= _FOLDED * width:
            return [list(range(len(widths)))]
        names = list(range(self.names))
        tables: list[list[int]] = []
        left = 0
        for column in range(self.names, len(widths)):
            if not tables or widths[column] > left:
                tables.append(list(names))
                # One place at either edge.
                left = width - 2 - sum(widths[: self.names])
            tables[-1].append(column)
            left -= widths[column]
        return tables

    def markdown(self) -> str:
        """The table as Markdown, under its title."""
        rules = [":---" if number in self.left else "---:" for number in range(len(self.headings))]
        lines = [_line(map(_escaped, self.headings)), _line(rules)]
        lines += [_line(map(_escaped, row.cells)) for row in self.rows]
        title = f"### {_escaped(self.title)}\n\n" if self.title else ""
        return title + "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Line:
    """A line of text in one style of rich."""

    text: str
    style: str = ""

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


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """`text` without what Markdown takes for a sign of its own; underscores inside words are none."""
    return re.sub(r"([\\|*`]|<(?=[A-Za-z/!?]))", r"\\\1", text)
