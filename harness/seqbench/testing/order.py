"""Clauses in the order of what they rest on, so that one mistake is one failure."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from seqbench.testing.clause import Clause, examine
from seqbench.testing.report import FAILED, NOT_REACHED, Outcome


def examine_in_order(subject: Any, clauses: Mapping[str, Clause], wanted: Iterable[str]) -> list[Outcome]:
    """Outcomes of the wanted clauses, and of those that they rest on and that failed, in the order of `clauses`.

    A clause that rests on a failed one is not run; one that meets an error that another clause has met already is not
    counted a second time.
    """
    found: dict[str, Outcome] = {}
    chosen = list(wanted)
    for name in clauses:
        if name in chosen:
            _examine(subject, clauses, name, found)
    return [found[name] for name in clauses if name in chosen or (name in found and found[name].state == FAILED)]


def _examine(subject: Any, clauses: Mapping[str, Clause], name: str, found: dict[str, Outcome]) -> Outcome:
    if name in found:
        return found[name]
    clause = clauses[name]
    for needed in clause.needs:
        outcome = _examine(subject, clauses, needed, found)
        if outcome.state in (FAILED, NOT_REACHED):
            # The clause at the bottom of it, not the one that could not be reached either.
            cause = outcome.cause or needed
            found[name] = Outcome(name, clause.rule, NOT_REACHED, f"rests on {cause}, which fails", cause=cause)
            return found[name]
    found[name] = _grouped(examine(subject, clause), found)
    return found[name]


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
