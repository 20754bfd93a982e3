"""One rule of a contract, and running it."""

import dataclasses
import inspect
import random
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from seqbench.testing.report import DECLARED, FAILED, PASSED, ClauseFailure, Outcome


@dataclass(frozen=True)
class Clause:
    """A rule that a plugin keeps.

    Attributes:
        name: as failures and exemptions name it.
        run: takes the subject; raises ClauseFailure, or returns a remark or None.
    """

    name: str
    run: Callable[[Any], str | None]

    @property
    def rule(self) -> str:
        """The rule in words, its first paragraph."""
        return " ".join((inspect.getdoc(self.run) or "").partition("\n\n")[0].split())


def clause_table(rules: Mapping[str, Callable[[Any], str | None]]) -> dict[str, Clause]:
    """Clauses by name."""
    return {name: Clause(name, run) for name, run in rules.items()}


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
    return Outcome(clause.name, clause.rule, DECLARED, reason, f"found: {found.message}")


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


def _run(subject: Any, clause: Clause) -> Outcome:
    try:
        with own_draws():
            return Outcome(clause.name, clause.rule, PASSED, clause.run(subject) or "")
    except ClauseFailure as failure:
        return Outcome(clause.name, clause.rule, FAILED, failure.message, failure.hint)
    # A plugin may raise anything, or try to end the process.
    except (Exception, SystemExit) as error:
        return Outcome(
            clause.name, clause.rule, FAILED, f"{type(error).__name__}: {error}", traceback=traceback.format_exc()
        )


def _exemption(subject: Any, clause: Clause) -> str | None:
    """Why the plugin declares not to fulfil the clause; a plugin that cannot tell fails the clause on exemptions."""
    try:
        return subject.exemptions.get(clause.name)
    except Exception:
        return None
