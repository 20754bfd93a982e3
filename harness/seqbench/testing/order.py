"""Clauses in the order of what they rest on, so that one mistake is one failure."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from seqbench.testing.clause import Clause, examine
from seqbench.testing.report import FAILED, NOT_REACHED, Outcome


def examine_in_order(subject: Any, clauses: Mapping[str, Clause], wanted: Iterable[str]) -> list[Outcome]:
    """Outcomes of the wanted clauses, and of those that they rest on and that failed, in the order of `clauses`.

    A clause that rests on a failed one is not run; one that meets an error that another clause has met already is not
    counted a second time. Clauses that nobody wants are run only where one that rests on them fails, to explain it.
    """
    return _Examination(subject, clauses, set(wanted)).outcomes()


class _Examination:
    def __init__(self, subject: Any, clauses: Mapping[str, Clause], wanted: set[str]) -> None:
        self._subject, self._clauses, self._wanted = subject, clauses, wanted
        self._found: dict[str, Outcome] = {}

    def outcomes(self) -> list[Outcome]:
        for name in self._clauses:
            if name in self._wanted:
                self._examine(name)
        return [
            self._found[name]
            for name in self._clauses
            if name in self._found and (name in self._wanted or self._found[name].state == FAILED)
        ]

    def _examine(self, name: str) -> Outcome:
        if name not in self._found:
            needs = self._clauses[name].needs
            self._found[name] = self._not_reached(
                name, [needed for needed in needs if needed in self._wanted]
            ) or self._run(name)
        return self._found[name]

    def _run(self, name: str) -> Outcome:
        outcome = examine(self._subject, self._clauses[name])
        if outcome.state == FAILED:
            outcome = self._not_reached(name, self._clauses[name].needs) or outcome
        return _grouped(outcome, self._found)

    def _not_reached(self, name: str, needs: Iterable[str]) -> Outcome | None:
        """The outcome of a clause of which one of those that it rests on fails."""
        for needed in needs:
            outcome = self._examine(needed)
            if outcome.state in (FAILED, NOT_REACHED):
                # The clause at the bottom of it, not the one that could not be reached either.
                cause = outcome.cause or needed
                message = f"rests on {cause}, which fails"
                return Outcome(name, self._clauses[name].rule, NOT_REACHED, message, cause=cause)
        return None


def _grouped(outcome: Outcome, found: Mapping[str, Outcome]) -> Outcome:
    """As "not reached" where the error is one that another clause has met."""
    if outcome.state != FAILED or not outcome.traceback:
        return outcome
    for name, other in found.items():
        same = (other.message, other.place) == (outcome.message, outcome.place)
        if other.state == FAILED and other.traceback and same:
            message = f"meets the error that fails {name}"
            return dataclasses.replace(outcome, state=NOT_REACHED, message=message, hint="", traceback="", cause=name)
    return outcome
