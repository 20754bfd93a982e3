"""What decides rounding and was otherwise when a run was made: told, and no reason to make it again."""

from collections.abc import Mapping
from typing import Any

from seqbench.environment import installed_packages
from seqbench.planning.plan import RunPlan
from seqbench.store.damage import DamagedFile
from seqbench.store.run_folder import RunFolder
from seqbench.surroundings.variables import differing_variables, rounding_variables

# In environment.json, besides variables.
_FIELDS = ("device_name", "cpu_capability", "threads", "kernels")
_PACKAGES = ("torch", "transformers")


def rounding_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not the same in two environments, such as "threads 1, now 2"."""
    # A run from before requests were recorded had none; of what was not recorded then, nothing is known.
    unrecorded = {"kernels": "", "cpu_capability": now["cpu_capability"]}
    values = [(key, before.get(key, unrecorded.get(key)), now[key]) for key in _FIELDS]
    values += differing_variables(before.get("variables", now["variables"]), now["variables"])
    values += [(key, before.get("packages", {}).get(key), now["packages"].get(key)) for key in _PACKAGES]
    return [f"{key} {_shown(one)}, now {_shown(other)}" for key, one, other in values if one != other]


def made_otherwise(plan: RunPlan, folder: RunFolder) -> list[str]:
    """What was otherwise when the stored result was made, such as "MKL_CBWR AVX2 instead of unset".

    Requests, variables and libraries. A result does not depend on them but for rounding, and so they are no part of the
    run's hash.
    """
    try:
        stored = folder.read_environment()
    except DamagedFile:
        return []
    found = []
    if stored and stored.get("kernels", "") != plan.kernels:
        found.append(f"--kernels {stored.get('kernels', '')!r} instead of {plan.kernels!r}")
    if stored and plan.threads not in (None, stored.get("threads")):
        found.append(f"{stored.get('threads')} threads instead of {plan.threads}")
    here, packages = rounding_variables(), installed_packages()
    values = differing_variables(stored.get("variables", here), here)
    then = {**packages, **stored.get("packages", {})}
    values += [(name, then[name], packages[name]) for name in _PACKAGES if name in packages]
    return [*found, *(f"{name} {one} instead of {other}" for name, one, other in values if one != other)]


def _shown(value: Any) -> Any:
    return value if value != "" else "by default"
