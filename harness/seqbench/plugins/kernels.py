"""Kernels found by name: the core imports none, they announce themselves through the entry points `bench.kernels`.

Each entry point names an `Operation`. Which of its paths runs is up to the operation, unless a request says otherwise:
"reference" asks for that path of every operation that has it, "scan=reference,attention=triton" for one path each.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Protocol, cast

from seqbench.errors import RequestError

# It takes seconds to import, and a stored result is shown without it.
if TYPE_CHECKING:
    import torch

GROUP = "bench.kernels"

# What operations go by where no option was given; they read it themselves too.
ENVIRONMENT_VARIABLE = "SEQBENCH_KERNELS"

# What stands among the taken paths of operations whose work a model did in place, for single tokens.
DECODING_STEP = "decoding-step"


class Path(Protocol):
    """One implementation of an operation; `unavailable` says why it cannot serve tensors, None when it can."""

    @property
    def name(self) -> str:
        """What requests call it."""

    @property
    def unavailable(self) -> Callable[[torch.device, torch.dtype], str | None]:
        """Why it cannot serve tensors of a device and dtype, or None."""


class Operation(Protocol):
    """What the core asks of an announced operation.

    Attributes:
        name: that of its entry point.
        function: does the work.
        paths: its implementations, the preferred first.
        cases: arguments to time the function with, by their shape, on a device.
        taken: names of the paths that have run in this process.
    """

    name: str
    function: Callable[..., Any]
    paths: Sequence[Path]
    cases: Callable[[torch.device], Mapping[str, Callable[[], tuple[Any, ...]]]]
    taken: set[str]

    def available(self, device: torch.device, dtype: torch.dtype) -> list[str]:
        """Names of the paths that can serve, the preferred first."""

    def requested(self) -> str | None:
        """The name of the path that was asked for, if one was."""

    def request_paths(self, request: str | None) -> None:
        """Ask all operations for paths from now on; None goes back to the environment variable."""

    def check_request(self, request: str, operations: Sequence[Any], device: torch.device | None = None) -> None:
        """Raise ValueError for a word of `request` that none of `operations`, or none on `device`, can follow."""


@dataclass(frozen=True)
class BrokenOperation:
    """An operation that is announced but cannot be used, and why."""

    name: str
    target: str
    reason: str
    traceback: str


@cache
def find_operation(operation: str) -> Operation:
    """What is announced for `operation`.

    Raises LookupError when nobody announces it, which means that the installation is incomplete.
    """
    for point in _points():
        if point.name == operation:
            return point.load()
    raise LookupError(f"no installed package announces a kernel for {operation!r} under the entry points {GROUP!r}")


def find_kernel(operation: str) -> Callable[..., Any]:
    """The function announced for `operation`; raises as `find_operation`."""
    return find_operation(operation).function


def announced_operations() -> dict[str, Operation | BrokenOperation]:
    """Every announced operation by name, imported; those that cannot be used as `BrokenOperation`."""
    return {point.name: _load(point) for point in _points()}


def usable_operations() -> list[Operation]:
    """The announced operations that are not broken, by name."""
    return [found for found in announced_operations().values() if not isinstance(found, BrokenOperation)]


def broken_operations() -> list[BrokenOperation]:
    """The announced operations that are broken, by name."""
    return [found for found in announced_operations().values() if isinstance(found, BrokenOperation)]


def asked_paths(option: str | None) -> str:
    """The request of an option, or of the environment where it is None, without blanks; "" for none."""
    return "".join((os.environ.get(ENVIRONMENT_VARIABLE, "") if option is None else option).split())


def check_request(request: str, device: torch.device) -> None:
    """Raise RequestError unless operations can follow every word of `request` on `device`."""
    if not request:
        return
    operations = usable_operations()
    try:
        if not operations:
            raise ValueError("no kernels are announced that can be used")
        # One dispatch serves all operations.
        operations[0].check_request(request, operations, device)
    except ValueError as error:
        broken = "".join(f"\n{each.name} is broken: {each.reason}" for each in broken_operations())
        raise RequestError(f"--kernels {request}: {error}{broken}") from error


@contextmanager
def requested_paths(request: str) -> Iterator[None]:
    """Inside, operations take the paths of a request that was checked; "" leaves the choice to them."""
    operations = usable_operations() if request or os.environ.get(ENVIRONMENT_VARIABLE) else []
    for operation in operations[:1]:
        operation.request_paths(request)
    try:
        yield
    finally:
        for operation in operations[:1]:
            operation.request_paths(None)


def forget_taken_paths() -> None:
    """Begin a record of the paths that run."""
    for operation in _imported():
        operation.taken.clear()


def taken_paths() -> dict[str, list[str]]:
    """Operation -> names of the paths that have run since `forget_taken_paths`; without operations that did not run.

    Nothing is imported for it: what is not imported has not run.
    """
    return {operation.name: sorted(operation.taken) for operation in _imported() if operation.taken}


def _imported() -> list[Operation]:
    found = [_load(point) for point in _points() if point.module in sys.modules]
    return [operation for operation in found if not isinstance(operation, BrokenOperation)]


@cache
def _points() -> Sequence[EntryPoint]:
    return sorted(entry_points(group=GROUP), key=lambda point: point.name)


@cache
def _load(point: EntryPoint) -> Operation | BrokenOperation:
    try:
        operation = point.load()
        needed = (*Operation.__annotations__, "requested", "check_request")
        missing = [name for name in needed if not hasattr(operation, name)]
        if missing:
            raise TypeError(f"{point.value} is no operation: it has no {missing[0]}")
        if operation.name != point.name:
            raise ValueError(f"{point.value} calls itself {operation.name!r}")
    except (Exception, SystemExit) as error:
        return BrokenOperation(point.name, point.value, f"{type(error).__name__}: {error}", traceback.format_exc())
    return cast(Operation, operation)
