"""What an examination of a plugin found, clause by clause."""

from collections.abc import Sequence
from dataclasses import dataclass

PASSED, FAILED, DECLARED, NOT_REACHED = "passed", "failed", "declared", "not reached"


class ClauseFailure(Exception):
    """A plugin does not fulfil a clause.

    Args:
        message: what was expected and what was found, with numbers and the place.
        hint: what usually causes it, or an empty string.
        place: the line of the author's file that it is about, or an empty string.
    """

    def __init__(self, message: str, hint: str = "", place: str = "") -> None:
        super().__init__(message)
        self.message, self.hint, self.place = message, hint, place


def few(names: Sequence[str]) -> str:
    """The first three names in words, and how many more there are."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


@dataclass(frozen=True)
class Outcome:
    """What became of one clause.

    Attributes:
        clause: its name.
        rule: what it demands, in words.
        state: "passed", "failed", "declared" for a clause that is not fulfilled and that the plugin says so of, or "not
            reached" for one that says nothing as long as another one fails.
        message: why it failed, what the plugin declares, or a remark on a clause that passed; may be empty.
        hint: what usually causes such a failure; may be empty.
        traceback: of the plugin's own error, where one was raised; else empty.
        place: the line of the author's file where that was; else empty.
        cause: the clause because of which this one was not reached; else empty.
        output: what the plugin printed meanwhile.
    """

    clause: str
    rule: str
    state: str
    message: str = ""
    hint: str = ""
    traceback: str = ""
    place: str = ""
    cause: str = ""
    output: str = ""


class ContractBroken(AssertionError):
    """A plugin fails at least one clause; `report` says everything that was found."""

    def __init__(self, report: "Report") -> None:
        super().__init__(report.text())
        self.report = report


@dataclass(frozen=True)
class Report:
    """All clauses that were examined.

    Attributes:
        name: of the plugin.
        kind: "model" or "task".
        preset: the preset that was examined.
        outcomes: one per clause, in the order in which they ran.
    """

    name: str
    kind: str
    preset: str
    outcomes: Sequence[Outcome]

    @property
    def failures(self) -> list[Outcome]:
        """The clauses that failed; empty when the plugin is as it should be."""
        return [outcome for outcome in self.outcomes if outcome.state == FAILED]

    @property
    def not_reached(self) -> list[Outcome]:
        """The clauses that say nothing as long as others fail."""
        return [outcome for outcome in self.outcomes if outcome.state == NOT_REACHED]

    @property
    def printed_lines(self) -> int:
        """How many lines the plugin printed while it was examined."""
        return sum(len(outcome.output.splitlines()) for outcome in self.outcomes)

    @property
    def failed_clauses(self) -> set[str]:
        """Names of the clauses that failed."""
        return {outcome.clause for outcome in self.failures}

    def raise_for_failures(self) -> None:
        """Raise ContractBroken, an AssertionError, when a clause failed."""
        if self.failures:
            raise ContractBroken(self)

    def text(self) -> str:
        """The failures in words, one paragraph each."""
        lines = [f"{self.kind} {self.name} fails {len(self.failures)} of {len(self.outcomes)} clauses"]
        if self.not_reached:
            lines.append(f"{len(self.not_reached)} were not reached: {', '.join(o.clause for o in self.not_reached)}")
        for outcome in self.failures:
            lines.append(f"{outcome.clause}: {outcome.message}")
            lines += [f"  {outcome.hint}"] if outcome.hint else []
            lines += [f"  at {outcome.place}"] if outcome.place else []
            lines += [outcome.traceback.rstrip()] if outcome.traceback else []
        return "\n".join(lines)
