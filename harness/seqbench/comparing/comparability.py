"""Whether results may stand in one table: same data, same task code, same precision, and for time the same hardware."""

from collections.abc import Mapping, Sequence
from typing import Any

from seqbench.comparing.grid import GridRun
from seqbench.errors import RequestError
from seqbench.store.damage import DamagedFile
from seqbench.store.run_folder import RunFolder

# What decides speed, in environment.json.
_HARDWARE = ("device_name", "cores", "threads")


def require_comparable(grid: Sequence[GridRun], results: Sequence[Mapping[str, Any]]) -> None:
    """Raise RequestError, naming the runs and the reason, when two complete results must not be compared."""
    complete = [(cell, result) for cell, result in zip(grid, results, strict=True) if result["status"] == "complete"]
    for cell, result in complete[1:]:
        first_cell, first = complete[0]
        for what, one, other in _facts(first_cell, first, cell, result):
            if one != other:
                raise RequestError(
                    f"{_name(first)} and {_name(result)} cannot be compared: {what} is {one} and {other}"
                )
    _require_same_data(complete)


def with_hardware(grid: Sequence[GridRun], results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results as they are; where they were trained on different hardware, each complete one also says on which.

    Its field "hardware" is then text such as "AMD EPYC 7543, 2 cores, 1 thread".
    """
    complete = [result["status"] == "complete" for result in results]
    hardware = [_hardware(cell) if trained else None for cell, trained in zip(grid, complete, strict=True)]
    if len(set(hardware) - {None}) < 2:
        return list(results)
    return [
        {**result, "hardware": where} if where is not None else result
        for result, where in zip(results, hardware, strict=True)
    ]


def _hardware(cell: GridRun) -> str:
    try:
        name, cores, threads = (_trained_in(cell).read_environment()[key] for key in _HARDWARE)
    except (DamagedFile, KeyError):
        # No reason to lose a table: it says that times are not known to be comparable.
        return "unknown hardware"
    return f"{name}, {_counted(cores, 'core')}, {_counted(threads, 'thread')}"


def _counted(number: Any, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def _trained_in(cell: GridRun) -> RunFolder:
    """The folder of the run that trained the cell's model: another one for an ablation at evaluation alone."""
    trained = cell.plan.trained
    # Folder names are "<task>/<model>-<hash>" below the store.
    return cell.folder if trained is cell.plan else RunFolder(cell.folder.path.parent.parent / trained.folder_name)


def _facts(
    first_cell: GridRun, first: Mapping[str, Any], cell: GridRun, result: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    facts = [
        ("the task", first["task"]["name"], result["task"]["name"]),
        ("the task's config", first["task"]["config"], result["task"]["config"]),
        ("the task's data", first["task"].get("data"), result["task"].get("data")),
        ("the task's data", first["task"].get("data"), result["task"].get("data")),
        ("the version of the task", first_cell.plan.task.version, cell.plan.task.version),
        ("the precision", first["precision"], result["precision"]),
        ("--compile", first.get("compiled", False), result.get("compiled", False)),
        ("the split", first["split"], result["split"]),
    ]
    if cell.plan.budget.kind == "seconds":
        one, other = (_trained_in(each).read_environment() for each in (first_cell, cell))
        facts += [(f"{key} (the budget is time)", one.get(key), other.get(key)) for key in _HARDWARE]
    return facts


def _require_same_data(complete: Sequence[tuple[GridRun, Mapping[str, Any]]]) -> None:
    """Runs of one seed and batch size saw the same batches in the same order, as far as the shorter one goes."""
    longest: dict[tuple[int, int], tuple[GridRun, Mapping[str, Any]]] = {}
    for cell, result in sorted(complete, key=lambda entry: -entry[1]["steps"]):
        key = result["seed"], cell.plan.trainer.batch_size
        other_cell, other = longest.setdefault(key, (cell, result))
        if not _same_prefix(cell, result, other_cell, other):
            raise RequestError(
                f"{_name(result)} and {_name(other)} saw different training data; their results cannot be compared"
            )


def _same_prefix(cell: GridRun, result: Mapping[str, Any], other_cell: GridRun, other: Mapping[str, Any]) -> bool:
    if result["steps"] == other["steps"]:
        return bool(result["data_order_sha256"] == other["data_order_sha256"])
    if result["steps"] == 0:
        return True
    # At the last step that both have logged.
    here, there = _order_by_step(cell), _order_by_step(other_cell)
    common = here.keys() & there.keys()
    return bool(common) and here[max(common)] == there[max(common)]


def _order_by_step(cell: GridRun) -> dict[int, str]:
    rows = _trained_in(cell).read_log()
    return {row["step"]: row["data_order_sha256"] for row in rows if row["kind"] == "train"}


def _name(result: Mapping[str, Any]) -> str:
    return f"{result['model']['name']} seed {result['seed']}"
