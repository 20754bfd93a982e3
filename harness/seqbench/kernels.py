"""Kernels found by name: the core imports none, they announce themselves through the entry points `bench.kernels`."""

from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from typing import Any

GROUP = "bench.kernels"


@cache
def find_kernel(operation: str) -> Callable[..., Any]:
    """The function announced for `operation`.

    Raises LookupError when nobody announces it, which means that the installation is incomplete.
    """
    for entry_point in entry_points(group=GROUP):
        if entry_point.name == operation:
            return entry_point.load().function
    raise LookupError(f"no installed package announces a kernel for {operation!r} under the entry points {GROUP!r}")
