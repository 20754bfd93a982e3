"""`bench verify`: whether the figures of a finished run follow from its files."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqbench.accounting.counting import count_parameters
from seqbench.contracts import Measurement
from seqbench.environment import describe_environment
from seqbench.errors import RequestError
from seqbench.planning.plan import RunPlan
from seqbench.planning.stored_plan import stored_plan
from seqbench.plugins.kernels import asked_paths, check_request, forget_taken_paths, requested_paths, taken_paths
from seqbench.running.edited_source import edited_since
from seqbench.running.measuring import evaluate_trained, load_trained
from seqbench.running.rounding import rounding_differences
from seqbench.store.files import finite
from seqbench.store.run_folder import RunFolder
from seqbench.training.checkpoint import damaged_checkpoints
from seqbench.training.data_order import DataOrderHash

# Other hardware, threads or libraries round otherwise: a continuous figure may differ in its fourth digit, and one
# prediction in a thousand may tip over.
_RELATIVE_ROUNDING = 1e-4
_TIPPED_SHARE = 1e-3


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: in a few words.
        holds: whether it is as stored, up to rounding.
        detail: how exactly, or both values where it is not.
    """

    what: str
    holds: bool
    detail: str


def verify_run(folder: RunFolder, runs: Path, kernels: str | None = None, trust_plugins: bool = False) -> list[Finding]:
    """Make the test figures of a finished run again from its weights, and its data order from its seed.

    On the same machine with the same threads, kernels and versions the figures must be equal to the bit, elsewhere up
    to rounding.

    Args:
        folder: of the run.
        runs: the store, in which the run is looked for that trained the model of an ablation at evaluation alone.
        kernels: the request for paths of kernels; None for the one that the run was made with.
        trust_plugins: whether plugins may be imported from files of the working folder because the run names them.

    Raises RequestError when there is no finished run of the installed version, its files cannot be read, or kernels
    cannot follow the request.
    """
    _require_model(folder, runs)
    plan, result = stored_plan(folder, trust_plugins=trust_plugins), folder.read_result()
    if result is None:
        raise RequestError(f"{folder.path} holds a run that is not finished; its command goes on")
    if result["status"] != "complete":
        raise RequestError(f"{folder.path} holds a failed run ({result['failure']['reason']}), which has no figures")
    before = folder.read_environment()
    plan = dataclasses.replace(plan, kernels=asked_paths(before.get("kernels", "") if kernels is None else kernels))
    check_request(plan.kernels, plan.device)
    trained = RunFolder(runs / result["trained_in"]) if "trained_in" in result else folder
    model = load_trained(plan, trained)
    parameters = count_parameters(plan.model, model)
    with requested_paths(plan.kernels):
        forget_taken_paths()
        evaluation = evaluate_trained(plan, model)
    elsewhere = rounding_differences(before, describe_environment(plan.device, plan.kernels))
    elsewhere += _other_paths(result, taken_paths())
    exact = not elsewhere
    detail = "as then: figures must be equal" if exact else f"figures may differ by rounding: {', '.join(elsewhere)}"
    return [
        Finding("machine", True, detail),
        Finding("source", True, _source(result)),
        _files(folder, trained),
        _equal("parameters by group", result["parameters"], parameters),
        *_compare_measurements(result["measurements"], evaluation.measurements, exact),
        _equal("order of the training data", result["data_order_sha256"], _data_order(plan, result)),
    ]


def _require_model(folder: RunFolder, runs: Path) -> None:
    """Raise RequestError for a complete run without weights, before its model is looked for, perhaps on a hub."""
    result = folder.read_result() if folder.read_run() is not None else None
    if result is None or result["status"] != "complete":
        return
    trained = RunFolder(runs / result["trained_in"]) if "trained_in" in result else folder
    if not trained.model.is_dir():
        digits = (trained.named_by() or result["hash"])[:8]
        raise RequestError(
            f"{trained.path} has no folder model/, and without its weights nothing can be measured again; to make them"
            f" again, type bench runs --hash {digits} --remove, and then the run's command"
        )


def _files(folder: RunFolder, trained: RunFolder) -> Finding:
    """Whether all files are as they were written; what was removed, or never had a checksum, is told."""
    folders = [folder] if trained is folder else [folder, trained]
    damages = [damage for each in folders for damage in (*each.damages(), *damaged_checkpoints(each.checkpoints))]
    told = [str(damage).splitlines()[0] for damage in damages]
    remarks = [remark for each in folders for remark in each.remarks()]
    return Finding("files", not damages, "; ".join([*told, *remarks]) or "equal to their checksums")


def _source(result: Mapping[str, Any]) -> str:
    if not result.get("sources"):
        return "not recorded"
    edited = edited_since(result)
    return (
        f"other code under the same version: {'; '.join(edited)}"
        if edited
        else "equal to that of the installed plugins"
    )


def _equal(what: str, stored: Any, found: Any) -> Finding:
    return Finding(what, stored == found, "equal" if stored == found else f"stored {stored}, found {found}")


def _other_paths(result: Mapping[str, Any], taken: Mapping[str, Sequence[str]]) -> list[str]:
    """Paths that run now and did not when the run was made: of a package that was not there, for example."""
    if "kernels" not in result:
        return []
    before = result["kernels"]["taken"]
    new = {name: [path for path in paths if path not in before.get(name, ())] for name, paths in taken.items()}
    return [
        f"{name} {' and '.join(before.get(name, ['not run']))}, now {' and '.join(paths)}"
        for name, paths in new.items()
        if paths
    ]


def _compare_measurements(
    stored: list[Mapping[str, Any]], found: tuple[Measurement, ...], exact: bool
) -> list[Finding]:
    if len(stored) != len(found):
        return [Finding("test figures", False, f"stored {len(stored)}, found {len(found)}")]
    return [_compare_figure(one, other, exact) for one, other in zip(stored, found, strict=True)]


def _compare_figure(stored: Mapping[str, Any], found: Measurement, exact: bool) -> Finding:
    where = ", ".join(f"{name} {value}" for name, value in found.coordinates.items()) or "all"
    what = f"{found.metric}, {where}"
    if (stored["metric"], dict(stored["coordinates"])) != (found.metric, dict(found.coordinates)):
        return Finding(what, False, f"stored is {stored['metric']} at {stored['coordinates']}")
    before, now = stored["value"], finite(found.value)
    if before == now:
        return Finding(what, True, "equal to the bit")
    if before is None or now is None:
        return Finding(what, False, f"stored {before}, found {now}")
    allowed = _TIPPED_SHARE if found.unit == "fraction" else _RELATIVE_ROUNDING * abs(before)
    holds = not exact and abs(before - now) <= allowed
    return Finding(what, holds, f"stored {before:.6g}, found {now:.6g}")


def _data_order(plan: RunPlan, result: Mapping[str, Any]) -> str:
    """The hash over the batches that the run must have seen."""
    order = DataOrderHash()
    steps = result["steps"]
    for step in range(steps):
        order.add(plan.task.training_batch(plan.seed, step, plan.trainer.batch_size))
    return order.digest if steps else ""
