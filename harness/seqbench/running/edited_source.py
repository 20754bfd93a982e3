"""Whether a stored result was made with the source that its plugins have now."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from seqbench.plugins.plugin_source import source_sha256
from seqbench.plugins.registry import MODEL_GROUP, TASK_GROUP, source_of_name

if TYPE_CHECKING:
    from seqbench.planning.plan import RunPlan

_Stored = Mapping[str, Any]


def sources_of(plan: "RunPlan") -> dict[str, str | None]:
    """What is recorded with a run beside the versions of its plugins."""
    return {"model": source_sha256(plan.model), "task": source_sha256(plan.task)}


def edited_sources(stored: _Stored, now: Mapping[str, str | None], names: Mapping[str, str]) -> list[str]:
    """What differs, such as "model toy: source 1a2b3c4d, now 5e6f7a8b".

    Args:
        stored: "sources" of a result or of environment.json; one from before they were recorded differs in nothing.
        now: as `sources_of`.
        names: of the model and the task.
    """
    found = []
    for kind, digest in now.items():
        before = (stored.get("sources") or {}).get(kind)
        if before is not None and before != digest:
            found.append(f"{kind} {names[kind]}: source {before[:8]}, now {(digest or 'unknown')[:8]}")
    return found


def edited_since(result: _Stored) -> list[str]:
    """The same of a stored result. Its plugins are looked up and not imported; one that is not there is passed over."""
    names = {kind: result[kind]["name"] for kind in ("model", "task")}
    groups = {"model": MODEL_GROUP, "task": TASK_GROUP}
    found = {kind: source_of_name(names[kind], group) for kind, group in groups.items()}
    return edited_sources(result, {kind: digest for kind, digest in found.items() if digest is not None}, names)


def what_to_do(difference: str, run_hash: str) -> str:
    """A line for whoever is shown the result."""
    return (
        f"bench: the stored result was made with other code under the same version ({difference}); raise the plugin's"
        f" version, or type bench runs --hash {run_hash[:8]} --remove to have it made again"
    )
