"""Texts in a column of a Parquet file."""

from collections.abc import Iterator
from typing import IO

import pyarrow
import pyarrow.parquet

from seqbench_tasks.text.damage import DAMAGE, Damage, described
from seqbench_tasks.text.json_lines import DEFAULT_FIELD
from seqbench_tasks.text.records import BadRecord, Record

_ROWS = 256


def parquet_rows(stream: IO[bytes], field: str) -> Iterator[Record | BadRecord]:
    """The texts of a file in which one can jump, in order. A damaged row group is one bad record.

    Raises one of `DAMAGE` where the file has no readable end, which says what is in it.
    """
    file = pyarrow.parquet.ParquetFile(stream, page_checksum_verification=True)
    name = field or DEFAULT_FIELD
    fault = _column_fault(file.schema_arrow, name)
    if fault is not None:
        yield BadRecord("", fault)
        return
    first = 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        try:
            yield from _group(file, group, name, first, rows)
        except DAMAGE as error:
            yield BadRecord(f", row group {group}", f"of its rows {first} to {first + rows - 1}: {described(error)}")
        first += rows
    if first != file.metadata.num_rows:
        yield BadRecord("", f"it says that it has {file.metadata.num_rows:,} rows, and has {first:,}")


def _group(
    file: pyarrow.parquet.ParquetFile, group: int, column: str, first: int, rows: int
) -> Iterator[Record | BadRecord]:
    """The rows of a row group. Raises one of `DAMAGE`."""
    number = first
    for batch in file.iter_batches(batch_size=_ROWS, row_groups=[group], columns=[column]):
        # "meta.text" also stands for the field text of a struct meta, so that both come; as bytes, so that nothing
        # between the file and us decodes them.
        for content in batch.column(column).cast(pyarrow.large_binary()).to_pylist():
            place = f", row {number}"
            yield BadRecord(place, "it has no text") if content is None else Record(place, iter((content,)))
            number += 1
    if number != first + rows:
        raise Damage(f"it has {number - first} rows instead of {rows}")


def _column_fault(columns: pyarrow.Schema, name: str) -> str | None:
    """Why the column holds no text, or None."""
    count = columns.names.count(name)
    if not count:
        return f"it has no column {name!r}, only {', '.join(columns.names)}; name one with task.text_field"
    if count > 1:
        return f"it has {count} columns {name!r}, and nothing says which is meant"
    kind = columns.field(name).type
    return None if _holds_text(kind) else f"its column {name!r} is no text, but {kind}"


def _holds_text(kind: pyarrow.DataType) -> bool:
    types = pyarrow.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    tests = (
        types.is_string,
        types.is_large_string,
        types.is_string_view,
        types.is_binary,
        types.is_large_binary,
        types.is_binary_view,
    )
    return any(test(kind) for test in tests)
