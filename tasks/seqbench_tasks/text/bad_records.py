"""Text that cannot be used: named and fatal, or counted and skipped; and what is left out on purpose."""

from collections.abc import Sequence

from seqbench.errors import RequestError
from seqbench_tasks.text.names import printable

# Places that are named when records were skipped; more than a reader looks at helps nobody.
_NAMED = 5


class BadRecords:
    """What was bad in a corpus.

    Args:
        policy: "fail" raises at the first one, "skip" counts them; "refuse" raises where the user cannot skip them.
    """

    def __init__(self, policy: str) -> None:
        self._policy = policy
        self.count = 0
        self._first: list[str] = []
        self._left_out = 0
        self._first_left_out: list[str] = []

    def add(self, place: str, fault: str) -> None:
        """Count one bad record, such as ("a.jsonl, line 7", "it is no JSON"). Raises RequestError when it is fatal."""
        self.add_counted(1, [(place, fault)])

    def add_counted(self, count: int, first: Sequence[tuple[str, str]]) -> None:
        """Count bad records, of which the first ones are described. Raises RequestError when they are fatal."""
        if count:
            self.require_skipping(*first[0])
        self.count += count
        self._first += [f"{printable(place)}: {fault}" for place, fault in first[: _NAMED - len(self._first)]]

    def leave_out(self, count: int, first: Sequence[tuple[str, str]]) -> None:
        """Count what is no document on purpose, such as hidden files, of which the first are described."""
        self._left_out += count
        free = _NAMED - len(self._first_left_out)
        self._first_left_out += [f"{printable(place)} ({printable(why)})" for place, why in first[:free]]

    def require_skipping(self, place: str, fault: str) -> None:
        """Raise RequestError when bad records are fatal."""
        if self._policy != "skip":
            advice = ", or leave such records out with --set task.on_bad_record=skip" if self._policy == "fail" else ""
            raise RequestError(f"{printable(place)}: {fault}\nrepair or remove it{advice}")

    def notes(self) -> list[str]:
        """How many records were skipped or left out, and where the first ones are."""
        notes = []
        if self.count:
            notes.append(f"{self.count:,} bad records were skipped: {_listed(self._first, self.count)}")
        if self._left_out:
            notes.append(f"{self._left_out:,} files were left out: {_listed(self._first_left_out, self._left_out)}")
        return notes


def _listed(first: Sequence[str], count: int) -> str:
    return "; ".join([*first, "..."] if count > len(first) else first)
