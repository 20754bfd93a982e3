"""Which stored results are the answer, and which are to be tried again by the same command."""

import re
from pathlib import Path
from typing import Any

from seqbench.planning.plan import RunPlan
from seqbench.store.run_folder import RunFolder
from seqbench.surroundings.circumstances import told_in

TIME_OUT, TRAINING_FAILED = "time-out", "training-failed"

# Earlier versions stored as failures of the run what circumstance did, and requests that were refused.
_NO_RESULTS = ("disk-full", "not-stored", "refused")
_FORMER_KILL = re.compile(r"ended by SIG(?!ABRT|BUS|FPE|ILL|SEGV|SYS|TRAP)")
_FORMER_LIMIT = re.compile(r"time limit of (\S+) seconds")


def standing_result(
    plan: RunPlan, folder: RunFolder, runs: Path, retry_failed: bool, time_limit: float | None = None
) -> dict[str, Any] | None:
    """The stored result of a run that is not to be tried again, or None.

    Args:
        plan: of the run.
        folder: where it is stored.
        runs: the store, in which the run is looked for that trained the model of an ablation at evaluation alone.
        retry_failed: whether no failure stands.
        time_limit: seconds that the run may take now; a run that took too long is tried again when it may take longer.
    """
    result = folder.finished_result(plan.run_hash)
    if result is None or result["status"] == "complete":
        return result
    if retry_failed or not _is_result(result["failure"], time_limit):
        return None
    if result["failure"]["reason"] == TRAINING_FAILED:
        trained = plan.trained
        before = standing_result(trained, RunFolder(runs / trained.folder_name), runs, retry_failed, time_limit)
        return result if before is not None and before["status"] != "complete" else None
    return result


def _is_result(failure: dict[str, Any], time_limit: float | None) -> bool:
    """Whether a stored failure says something about the run, under the present limit of time."""
    reason, message = failure["reason"], failure["message"]
    if reason == TIME_OUT:
        limit = failure.get("limit") or _former_limit(message)
        return limit is not None and time_limit is not None and time_limit <= limit
    if reason in _NO_RESULTS or (reason == "killed" and _FORMER_KILL.search(message)):
        return False
    return not (reason == "error" and told_in(message))


def _former_limit(message: str) -> float | None:
    found = _FORMER_LIMIT.search(message)
    return float(found[1]) if found else None
