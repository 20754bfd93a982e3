"""One rule of a contract, and running it."""

import dataclasses
import inspect
import io
import random
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from seqbench.testing.place import place_of_error
from seqbench.testing.report import DECLARED, FAILED, PASSED, ClauseFailure, Outcome


@dataclass(frozen=True)
class Clause:
    """A rule that a plugin keeps.

    Attributes:
        name: as failures and exemptions name it.
        run: takes the subject; raises ClauseFailure, or returns a remark or None.
        needs: names of the clauses without which this one says nothing.
    """

    name: str
    run: Callable[[Any], str | None]
    needs: Sequence[str] = ()

    @property
    def rule(self) -> str:
        """The rule in words, its first paragraph."""
        return " ".join((inspect.getdoc(self.run) or "").partition("\n\n")[0].split())


def clause_table(
    rules: Mapping[str, Callable[[Any], str | None]], needs: Mapping[str, Sequence[str]]
) -> dict[str, Clause]:
    """Clauses by name; `needs` names the clauses that some of them rest on."""
    return {name: Clause(name, run, needs.get(name, ())) for name, run in rules.items()}


def examine(subject: Any, clause: Clause) -> Outcome:
    """Run one clause; an error that the plugin raises in it is a failure of that clause.

    Random numbers drawn in it are the same every time, and the caller's generators are left as they were.
    """
    reason = _exemption(subject, clause)
    found = _run(subject, clause)
    if reason is None or clause.name == "exemptions":
        return found
    if found.state == PASSED:
        remark = f"declared as not fulfilled ({reason}), and fulfilled: take the exemption out"
        return dataclasses.replace(found, message=remark)
    return Outcome(clause.name, clause.rule, DECLARED, reason, f"found: {found.message}", output=found.output)


@contextmanager
def own_draws() -> Iterator[None]:
    """Random numbers drawn inside are the same every time; the caller's generators are left as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices):
            for seed in (torch.manual_seed, random.seed, np.random.seed):
                seed(0)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def told_of(what: str) -> Iterator[None]:
    """An error that is raised inside says that it was raised on `what`, an input that is out of the ordinary."""
    try:
        yield
    except ClauseFailure:
        raise
    except Exception as error:
        error.add_note(f"on {what}")
        raise


def _run(subject: Any, clause: Clause) -> Outcome:
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        outcome = _outcome(subject, clause)
    return dataclasses.replace(outcome, output=printed.getvalue())


def _outcome(subject: Any, clause: Clause) -> Outcome:
    try:
        with own_draws():
            return Outcome(clause.name, clause.rule, PASSED, clause.run(subject) or "")
    except ClauseFailure as failure:
        return Outcome(clause.name, clause.rule, FAILED, failure.message, failure.hint, place=failure.place)
    # A plugin may raise anything, or try to end the process.
    except (Exception, SystemExit) as error:
        notes = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
        return Outcome(
            clause.name,
            clause.rule,
            FAILED,
            f"{type(error).__name__}: {error}{notes}",
            traceback=traceback.format_exc(),
            place=place_of_error(error, subject.plugin_class),
        )


def _exemption(subject: Any, clause: Clause) -> str | None:
    """Why the plugin declares not to fulfil the clause; a plugin that cannot tell fails the clause on exemptions."""
    try:
        return subject.exemptions.get(clause.name)
    except Exception:
        return None
