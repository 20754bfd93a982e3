"""Which implementation of an operation runs: by device and dtype, unless the user names one.

`SEQBENCH_KERNELS` in the environment, or `request_paths` in a program, says otherwise: a path's name alone stands for
all operations that have it ("reference"), and "memory_read=triton,phase_scan=reference" names them one by one. A path
that is asked for and cannot serve is an error, never replaced by another.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

ENVIRONMENT_VARIABLE = "SEQBENCH_KERNELS"
REFERENCE = "reference"

# Paths that were asked for: by operation, and under "" for all.
_requested: dict[str, str] | None = None

# A path may serve one of them alone; phases are whole numbers.
_DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.int32)


class UnknownPathError(ValueError):
    """A request names no path, or one that cannot serve."""


def anywhere(device: torch.device, dtype: torch.dtype) -> str | None:
    """The `unavailable` of a path that serves every device and dtype."""
    del device, dtype
    return None


@dataclass(frozen=True)
class Path:
    """One implementation of an operation.

    Attributes:
        name: "reference", "cpu", "triton", or the name of the package that does the work.
        unavailable: why the path cannot serve tensors of a device and dtype, as the end of a sentence, or None.
        by_default: whether it may be taken without being asked for: anywhere, nowhere, or on one type of device.
    """

    name: str
    unavailable: Callable[[torch.device, torch.dtype], str | None] = anywhere
    by_default: bool | str = True

    def is_default(self, device: torch.device) -> bool:
        """Whether it may be taken on a device without being asked for."""
        return self.by_default if isinstance(self.by_default, bool) else self.by_default == device.type


@dataclass
class Operation:
    """An operation and its paths.

    Attributes:
        name: what requests, runs and tables call it.
        function: the public function, which asks `choose` for its path.
        paths: in order of preference; the reference is one of them.
        cases: arguments to time it with, named by their shape; built on a device. Floating-point tensors that require
            gradients are timed with their backward pass.
        taken: names of the paths that have run in this process.
    """

    name: str
    function: Callable[..., Any]
    paths: Sequence[Path]
    cases: Callable[[torch.device], Mapping[str, Callable[[], tuple[Any, ...]]]] = lambda device: {}
    taken: set[str] = field(default_factory=set)

    def available(self, device: torch.device, dtype: torch.dtype) -> list[str]:
        """Names of the paths that can serve, the preferred first."""
        return [path.name for path in self.paths if path.unavailable(device, dtype) is None]

    def expected(self, device: torch.device | str) -> str:
        """The path that a call in fp32 on a device would take; unlike by `choose`, nothing is noted as taken."""
        return self.requested() or self.available(torch.device(device), torch.float32)[0]

    def requested(self) -> str | None:
        """The name of the path that was asked for, if one was."""
        return _wanted(self)

    # torch.compile takes the name as it finds it when it traces a model, and does not watch `taken`, which changes.
    @torch.compiler.assume_constant_result
    def choose(self, device: torch.device, dtype: torch.dtype) -> str:
        """The path to take for tensors of a device and dtype, which is noted as taken.

        Raises UnknownPathError when the path that was asked for cannot serve.
        """
        wanted = _wanted(self)
        for path in self.paths:
            if wanted is not None and path.name != wanted:
                continue
            reason = path.unavailable(device, dtype)
            if reason is None and (path.is_default(device) or wanted is not None):
                self.taken.add(path.name)
                return path.name
            if wanted is not None:
                raise UnknownPathError(
                    f"{self.name} was asked for its path {wanted!r}, which cannot serve {device.type} tensors of"
                    f" {str(dtype).removeprefix('torch.')}: {reason}"
                )
        raise UnknownPathError(f"{self.name} has no path for {device.type} tensors of {dtype}")

    # The two that concern all operations are here for whoever finds operations by entry point and imports no module.

    @staticmethod
    def request_paths(request: str | None) -> None:
        """`request_paths` of this module."""
        request_paths(request)

    @staticmethod
    def check_request(request: str, operations: "Sequence[Operation]", device: torch.device | None = None) -> None:
        """`check_request` of this module."""
        check_request(request, operations, device)


def request_paths(request: str | None) -> None:
    """Ask for paths from now on, in the words of SEQBENCH_KERNELS; None goes back to that variable.

    Raises UnknownPathError for words that cannot be read. Whether the operations have such paths shows when they run;
    `check_request` says it beforehand.
    """
    global _requested
    _requested = None if request is None else _parse(request)


def check_request(request: str, operations: Sequence[Operation], device: torch.device | None = None) -> None:
    """Raise UnknownPathError unless every word of `request` names an operation and a path of `operations`.

    With `device`, the path must also be able to serve tensors there: of any dtype, in any operation that has it.
    """
    by_name = {operation.name: operation for operation in operations}
    for name, path in _parse(request).items():
        if name and name not in by_name:
            raise UnknownPathError(f"no operation {name!r}; there are {', '.join(sorted(by_name))}")
        named = [by_name[name]] if name else operations
        known = {known.name for operation in named for known in operation.paths}
        if path not in known:
            where = f"{name} has" if name else "operations have"
            raise UnknownPathError(f"no path {path!r}; {where} {', '.join(sorted(known))}")
        if device is not None:
            _require_service(path, named, device)


def _require_service(name: str, operations: Sequence[Operation], device: torch.device) -> None:
    paths = [path for operation in operations for path in operation.paths if path.name == name]
    reasons = [path.unavailable(device, dtype) for path in paths for dtype in _DTYPES]
    if None not in reasons:
        raise UnknownPathError(f"the path {name!r} cannot serve {device.type} tensors: {reasons[0]}")


def _wanted(operation: Operation) -> str | None:
    global _requested
    if _requested is None:
        _requested = _parse(os.environ.get(ENVIRONMENT_VARIABLE, ""))
    for_all = _requested.get("")
    if for_all is not None and for_all not in {path.name for path in operation.paths}:
        for_all = None
    return _requested.get(operation.name, for_all)


def _parse(request: str) -> dict[str, str]:
    paths: dict[str, str] = {}
    for word in filter(None, (part.strip() for part in request.split(","))):
        operation, equals, path = (part.strip() for part in word.partition("="))
        if equals and not (operation and path):
            raise UnknownPathError(f"{word!r} is neither a path nor operation=path")
        name, path = (operation, path) if equals else ("", operation)
        if name in paths:
            raise UnknownPathError(f"{request!r} names {name or 'a path for all'} twice")
        paths[name] = path
    return paths
