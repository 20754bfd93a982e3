"""The examination before a model's first run, and of what was trained; a model that fails is refused."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from seqbench.contracts import Batch
from seqbench.errors import RequestError, RunFailure
from seqbench.planning.plan import RunPlan
from seqbench.plugins.kernels import requested_paths
from seqbench.soundness.clauses import CLAUSES, TRAINED_CLAUSES
from seqbench.soundness.subject import RunSubject
from seqbench.soundness.verdict import (
    Finding,
    failures,
    merged,
    read_findings,
    record,
    verdict_key,
    write_findings,
)
from seqbench.surroundings.circumstances import circumstance_of
from seqbench.testing.clause import own_draws
from seqbench.testing.model.probe import Probe
from seqbench.testing.report import DECLARED, FAILED, PASSED, ClauseFailure
from seqbench.training.gradients import is_out_of_memory

# A model that raises in these does not run at all, which is a failed run and no verdict.
_PLAIN_CALLS = ("causal", "rows-independent")


class Unsound(RequestError):
    """The model fails a clause that a score rests on."""


class Examination:
    """What is known of the soundness of a run's models.

    Args:
        plan: of the run.
        store: where findings are kept; None examines anew and keeps nothing.
    """

    def __init__(self, plan: RunPlan, store: Path | None) -> None:
        self._plan = plan
        configs = [plan.model_config]
        if plan.tested_config != plan.model_config:
            configs.append(plan.tested_config)
        self._keys = [verdict_key(plan, config) for config in configs]
        self._findings = merged(
            [_findings(plan, config, store, key) for config, key in zip(configs, self._keys, strict=True)]
        )
        self._trained: dict[str, Finding] | None = None

    def require_sound(self) -> None:
        """Raise Unsound when a clause failed, unless the run was asked for all the same."""
        failed = failures(self._findings)
        if failed and not self._plan.allow_unchecked:
            clause, message = next(iter(failed.items()))
            more = f" (and {', '.join(list(failed)[1:])})" if len(failed) > 1 else ""
            raise Unsound(
                f"model {self._plan.label} fails the clause {clause}{more}: {message}\n"
                f"its score would say nothing; `bench check {self._plan.model_name}` examines the whole contract, and"
                " --allow-unchecked runs it all the same, marked in every table"
            )

    def examine_trained(self, model: PreTrainedModel, batches: Sequence[Batch]) -> None:
        """Look at the trained model once more, on a copy, with batches of the test set and the first one of training.

        Raises RunFailure("unsound") when it fails, unless the run was asked for all the same.
        """
        exempt = self._plan.model.exemptions
        probe = Probe(copy.deepcopy(model).eval(), torch.float32, self._plan.task.vocab_size)
        subject = RunSubject(self._plan, self._plan.tested_config)
        # What is read of test sequences in a rehearsal may be short.
        batches = [*map(subject.cut, batches), *([] if subject.batch is None else [subject.batch])]
        self._trained = {}
        with own_draws():
            for name, clause in TRAINED_CLAUSES.items():
                self._trained[name] = _try(name, exempt, partial(_on_all, clause, probe, batches))
        failed = failures(self._trained)
        if failed and not self._plan.allow_unchecked:
            first, message = next(iter(failed.items()))
            raise RunFailure(
                "unsound",
                f"the trained model fails the clause {first}: {message}; with --retry-failed --allow-unchecked it is"
                " tested all the same, marked in every table",
            )

    def record(self) -> dict[str, Any]:
        """For result.json."""
        return record(self._findings, self._trained, self._keys[-1] or "")


def _on_all(clause: Callable[[Probe, Batch], None], probe: Probe, batches: Sequence[Batch]) -> None:
    for batch in batches:
        clause(probe, batch)


def _findings(plan: RunPlan, config: Any, store: Path | None, key: str | None) -> dict[str, Finding]:
    found = read_findings(store, key)
    if found is None:
        found = _examine(plan, config)
        write_findings(store, key, found)
    return found


def _examine(plan: RunPlan, config: Any) -> dict[str, Finding]:
    exempt, found = plan.model.exemptions, {}
    with own_draws(), requested_paths(plan.kernels):
        subject = RunSubject(plan, config)
        for name, clause in CLAUSES.items():
            found[name] = _try(name, exempt, partial(clause, subject))
    return found


def _try(name: str, exempt: Any, run: Callable[[], None]) -> Finding:
    """What becomes of a clause. What the plugin declares not to fulfil is not tried."""
    if name in exempt:
        return Finding(DECLARED, str(exempt[name]))
    try:
        run()
    except Exception as error:
        if is_out_of_memory(error) or circumstance_of(error) is not None:
            raise
        if isinstance(error, ClauseFailure):
            return Finding(FAILED, error.message)
        if name in _PLAIN_CALLS:
            raise
        return Finding(FAILED, f"{type(error).__name__}: {error}".splitlines()[0])
    return Finding(PASSED)
