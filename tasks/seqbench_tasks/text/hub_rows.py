"""A split of a hub data set, row by row, as the source of a store."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seqbench.errors import RequestError
from seqbench_tasks.text.records import BadRecord, Record

if TYPE_CHECKING:
    from datasets import IterableDataset


@dataclass(frozen=True)
class HubRows:
    """The texts of a split.

    Attributes:
        label: what to call it in messages.
        field: column of the text.
        load: gives the rows, from the first.
    """

    label: str
    field: str
    load: "Callable[[], IterableDataset]"

    def open(self, state: Any) -> "RowRecords":
        """The rows behind the place that `state` describes; None is the beginning."""
        try:
            return RowRecords(self.label, self.field, self.load(), state)
        except RequestError:
            raise
        # Every layer below has its own kind of error, and a network may fail at any of them.
        except Exception as error:
            raise _fetching_failed(self.label, error) from error


class RowRecords:
    """The rows of a split, from a place on."""

    def __init__(self, label: str, field: str, rows: "IterableDataset", state: Any) -> None:
        columns = rows.column_names
        if columns is not None and field not in columns:
            raise RequestError(
                f"{label} has no column {field!r}, only {', '.join(columns)}; name one with --set task.text_field=..."
            )
        if rows.info.builder_name == "text":
            raise RequestError(
                f"{label} holds plain text, which the hub's library reads by lines, so that line ends are lost; "
                "download its files and give their folder with --data"
            )
        self._label, self._field = label, field
        self._rows = rows if columns is None else rows.select_columns([field])
        self._number = 0
        if state is not None:
            self._number = state["row"]
            self._rows.load_state_dict(state["rows"])
        self._iterator = iter(self._rows)

    def next_record(self) -> Record | BadRecord | None:
        """The next row; None behind the last. Raises RequestError when it cannot be fetched."""
        try:
            row = next(self._iterator, None)
        except Exception as error:
            raise _fetching_failed(f"{self._label}, row {self._number}", error) from error
        if row is None:
            return None
        name, text = f", row {self._number}", row.get(self._field)
        self._number += 1
        if not isinstance(text, str):
            return BadRecord(name, f"its {self._field} is no text, but {type(text).__name__}")
        try:
            return Record(name, iter((text.encode("utf-8"),)))
        except UnicodeEncodeError:
            return BadRecord(name, "its text has half of a surrogate pair, which is no character")

    def state(self) -> Any:
        """The place behind the last row: the library's own state, and how many rows that were."""
        return {"row": self._number, "rows": self._rows.state_dict()}

    def close(self) -> None:
        """Let go of the connection."""
        self._iterator = iter(())


def _fetching_failed(label: str, error: Exception) -> RequestError:
    return RequestError(
        f"{label}: fetching it failed ({type(error).__name__}: {error})\n"
        "what has been fetched is kept: type the command again, or download the files and give their folder with --data"
    )
