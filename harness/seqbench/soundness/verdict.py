"""What was found of a model, in words that are stored with its results, and kept in the store for the next run."""

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import seqbench
from seqbench.errors import RequestError
from seqbench.planning.plan import RunPlan, hash_of
from seqbench.plugins.plugin_source import source_sha256
from seqbench.store.files import append_line
from seqbench.store.reader import read_lines
from seqbench.store.sealed import sealed_line, unsealed
from seqbench.testing.report import DECLARED, FAILED, PASSED

# A file of the store of runs, a line for each model that was examined.
CHECKS = "checks.jsonl"

# Raised whenever the same model could be judged otherwise.
_CHECK_VERSION = 1


@dataclass(frozen=True)
class Finding:
    """What became of one clause.

    Attributes:
        state: "passed", "failed" or "declared", for what the plugin says it cannot fulfil.
        message: what was found, or the plugin's reason; empty for a clause that is kept.
    """

    state: str
    message: str = ""


# Clause -> what became of it.
Findings = Mapping[str, Finding]


def failures(findings: Findings) -> dict[str, str]:
    """Clause -> what was found, of those that failed."""
    return {clause: finding.message for clause, finding in findings.items() if finding.state == FAILED}


def merged(findings: list[Findings]) -> dict[str, Finding]:
    """Of several models of one run the worst: the one that is trained, and the one that is tested."""
    order = (FAILED, DECLARED, PASSED)
    clauses = dict.fromkeys(clause for each in findings for clause in each)
    return {
        clause: min((each[clause] for each in findings if clause in each), key=lambda found: order.index(found.state))
        for clause in clauses
    }


def record(findings: Findings, trained: Findings | None, key: str) -> dict[str, Any]:
    """What result.json says: "state" is "sound" or "unsound", then clauses before and after training."""
    found = [findings, *([trained] if trained is not None else [])]
    return {
        "state": "unsound" if any(failures(each) for each in found) else "sound",
        "key": key,
        "clauses": _plain(findings),
        "trained": None if trained is None else _plain(trained),
    }


def verdict_key(plan: RunPlan, config: Any) -> str | None:
    """A hash over what decides the findings; None where that is not known, for a plugin without source."""
    source = source_sha256(plan.model)
    if source is None:
        return None
    return hash_of(
        {
            "check": _CHECK_VERSION,
            "core": seqbench.__version__,
            "packages": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
            "source": source,
            "model": plan.model.name,
            "config": dataclasses.asdict(config),
            "checkpoint": plan.model.checkpoint_sha256(),
            "resolved": dict(plan.model.resolved_config(config)),
            "vocabulary": plan.task.vocab_size,
            # The batches that it is tried on, too.
            "longest": plan.task.longest_sequence,
            "trains": plan.task.trains and plan.budget.target > 0,
            "task": [plan.task_name, source_sha256(plan.task)],
            "device": plan.device.type,
            "kernels": plan.kernels,
        }
    )


def read_findings(store: Path | None, key: str | None) -> dict[str, Finding] | None:
    """The stored findings; None where there are none, or they are not as they were written."""
    if store is None or key is None:
        return None
    found = None
    # Whatever lies there: at worst the model is examined again.
    with suppress(OSError, RequestError):
        for line in read_lines(store / CHECKS):
            with suppress(ValueError, LookupError, TypeError, AttributeError):
                row = unsealed(line.removesuffix(b"\n"))
                if row["key"] == key:
                    found = {clause: Finding(**entry) for clause, entry in row["clauses"].items()}
    return found


def write_findings(store: Path | None, key: str | None, findings: Findings) -> None:
    """Keep the findings; a store that takes nothing costs the next run an examination."""
    if store is not None and key is not None:
        with suppress(OSError):
            store.mkdir(parents=True, exist_ok=True)
            append_line(store / CHECKS, sealed_line({"key": key, "clauses": _plain(findings)}))


def _plain(findings: Findings) -> dict[str, dict[str, str]]:
    return {clause: dataclasses.asdict(finding) for clause, finding in findings.items()}
