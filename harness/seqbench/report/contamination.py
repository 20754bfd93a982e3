"""What of the test set a model had seen in training: the lines that say so where a figure is printed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from seqbench.report.document import Line
from seqbench.report.results import Result, complete, words

# Parts of a set that are named, the most contaminated first.
_NAMED_PARTS = 4

Record = Mapping[str, Any]


def contamination_notes(results: Sequence[Result]) -> list[Line]:
    """A line for each set of which samples repeat, stood in training, or stand in the test set as well.

    Counts of several runs that differ are given as a range. A result from before they were taken has none.
    """
    records = [record for result in complete(results) for record in result.get("contamination", ())]
    return [Line(text, "yellow") for split in ("test", "validation") for text in _of_split(records, split)]


def _of_split(records: Sequence[Record], split: str) -> Iterator[str]:
    whole = [record for record in records if record["split"] == split and not record["coordinates"]]
    parts: dict[str, list[Record]] = {}
    for record in records:
        if record["split"] == split and record["coordinates"]:
            parts.setdefault(_place(record), []).append(record)
    if any(record["in_training"] for record in whole):
        yield f"{_share(whole, 'in_training')} {split} samples stood in the training data{_worst(parts)}"
    if any(record["in_test"] for record in whole):
        yield f"{_share(whole, 'in_test')} {split} samples are test samples too"
    if any(record["distinct"] < record["items"] for record in whole):
        yield f"{_share(whole, 'distinct')} {split} samples are different ones"


def _worst(parts: Mapping[str, Sequence[Record]]) -> str:
    """The parts of a set that were seen most."""
    seen = {place: records for place, records in parts.items() if any(record["in_training"] for record in records)}
    order = sorted(seen, key=lambda place: -max(record["in_training"] / record["items"] for record in seen[place]))
    named = [f"{_share(seen[place], 'in_training')} at {place}" for place in order[:_NAMED_PARTS]]
    rest = [f"{len(order) - _NAMED_PARTS} more places"] if len(order) > _NAMED_PARTS else []
    return f" ({'; '.join([*named, *rest])})" if named else ""


def _share(records: Sequence[Record], field: str) -> str:
    """Such as "3 of 256 (1.2 %)", or "3 to 5 of 256 (1.2 % to 2.0 %)"."""
    counts, items = [record[field] for record in records], records[0]["items"]
    span = list(dict.fromkeys((min(counts), max(counts))))
    numbers = " to ".join(f"{count:,}" for count in span)
    percents = " to ".join(f"{100 * count / items:.1f} %" for count in span)
    return f"{numbers} of {items:,} ({percents})"


def _place(record: Record) -> str:
    return ", ".join(f"{words(name)} {value}" for name, value in record["coordinates"].items())
