"""Operations: every path of every announced one, on the shapes that it names itself."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from seqbench.contracts.suggestions import did_you_mean
from seqbench.errors import RequestError
from seqbench.plugins.kernels import BrokenOperation, Operation, Path, announced_operations, requested_paths
from seqbench.speed.clock import Timed
from seqbench.speed.failures import NotRun, describe_failure, release
from seqbench.speed.models import Watcher
from seqbench.speed.records import FAILED, NOT_RUN, Record
from seqbench.speed.rounds import Cell
from seqbench.speed.warm_up import warm_up

# What every other path is compared with.
REFERENCE = "reference"
FORWARD, BOTH = "forward", "forward+backward"


def find_operations(names: Sequence[str]) -> list[Operation | BrokenOperation]:
    """The announced operations called `names`, or all of them. Raises RequestError for a name that nothing has."""
    announced = announced_operations()
    for name in names:
        if name not in announced:
            raise RequestError(
                f"unknown operation {name!r}{did_you_mean(name, announced)}\n"
                f"announced operations: {', '.join(announced) or 'none'}"
            )
    if not announced:
        raise RequestError("no installed package announces operations")
    return [announced[name] for name in names or announced]


class OperationPass:
    """One call of an operation: forward without gradients, or forward and backward to all that require one."""

    units = 1

    def __init__(self, function: Callable[..., Any], arguments: Sequence[Any], direction: str) -> None:
        """`direction` is FORWARD or BOTH."""
        self._function, self._arguments, self._backward = function, arguments, direction == BOTH
        self._leaves = leaves(arguments)
        self._made: Any = None
        self._gradients: list[Tensor] | None = None

    def prepare(self) -> None:
        """Nothing: arguments stay as they are."""

    def call(self) -> None:
        """The outputs, or the gradients of the arguments for gradients of one at every output."""
        if not self._backward:
            with torch.no_grad():
                self._made = self._function(*self._arguments)
            return
        outputs = [output for output in _tensors(self._function(*self._arguments)) if output.requires_grad]
        if self._gradients is None:
            self._gradients = [torch.ones_like(output) for output in outputs]
        self._made = torch.autograd.grad(outputs, self._leaves, self._gradients, allow_unused=True)

    def clear(self) -> None:
        """Let go of outputs or gradients."""
        self._made = None


def leaves(arguments: Sequence[Any]) -> list[Tensor]:
    """The arguments that want a gradient."""
    return [argument for argument in _tensors(arguments) if argument.requires_grad]


def warm_up_operations(
    operations: Sequence[Operation | BrokenOperation],
    device: torch.device,
    repeats: int,
    time_limit: float,
    watcher: Watcher,
    cells: list[Cell],
) -> None:
    """Add a cell for every operation, case, direction and path to `cells`, and make those ready that can be timed."""
    for operation in operations:
        if isinstance(operation, BrokenOperation):
            place = {"operation": operation.name, "case": "-", "direction": FORWARD}
            cells.append(Cell(Record("-", place, FAILED, f"{operation.target} cannot be used: {operation.reason}")))
            continue
        for case, path, direction, arguments in _combinations(operation, device):
            record = Record(path.name, {"operation": operation.name, "case": case, "direction": direction})
            cell = Cell(record, within=_asking_for(f"{operation.name}={path.name}"))
            cells.append(cell)
            watcher.warming(record)
            _try_to_warm_up(cell, operation, path, arguments, device, repeats, time_limit)
            watcher.warmed(record)


def _combinations(operation: Operation, device: torch.device) -> Iterator[tuple[str, Path, str, tuple[Any, ...]]]:
    """(case, path, direction, arguments), the reference before the paths that are compared with it."""
    paths = sorted(operation.paths, key=lambda path: path.name != REFERENCE)
    for case, make in operation.cases(device).items():
        arguments = make()
        for direction in (FORWARD, BOTH) if leaves(arguments) else (FORWARD,):
            for path in paths:
                yield case, path, direction, arguments


def _asking_for(request: str) -> Callable[[], AbstractContextManager[None]]:
    return lambda: requested_paths(request)


def _try_to_warm_up(
    cell: Cell,
    operation: Operation,
    path: Path,
    arguments: tuple[Any, ...],
    device: torch.device,
    repeats: int,
    time_limit: float,
) -> None:
    state = FAILED
    try:
        _require_service(path, arguments, device)
        with cell.within():
            timed: Timed = OperationPass(operation.function, arguments, cell.record.place["direction"])
            seconds = warm_up(timed, cell.record, device)
        cell.record.peak_bytes = cell.record.rise_bytes
        left = repeats * seconds
        if left > time_limit:
            raise NotRun(f"its repeats would take about {left:,.0f} s, more than --time-limit {time_limit:g}")
        cell.timed = timed
        return
    except NotRun as refusal:
        reason, state = str(refusal), NOT_RUN
    except Exception as error:
        reason = describe_failure(error)
    cell.record.give_up(state, reason)
    release(device)


def _require_service(path: Path, arguments: Sequence[Any], device: torch.device) -> None:
    """Raise NotRun when the path serves none of the arguments' number formats; which one it asks for is its own."""
    formats = dict.fromkeys(tensor.dtype for tensor in _tensors(arguments))
    reasons = [path.unavailable(device, dtype) for dtype in formats]
    refusals = [reason for reason in reasons if reason is not None]
    if refusals and len(refusals) == len(reasons):
        raise NotRun(refusals[0])


def _tensors(values: Any) -> list[Tensor]:
    """The floating-point and other tensors in a tensor, or in tuples and lists of them."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, list | tuple):
        return [tensor for value in values for tensor in _tensors(value)]
    return []
