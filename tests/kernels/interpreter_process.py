"""A process in which Triton interprets its kernels on CPU tensors.

Triton decides when a kernel is defined whether it is to be compiled or interpreted, so one process cannot do both.
"""

import importlib
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch

INTERPRET = "TRITON_INTERPRET"


class InterpreterProcess:
    """Runs functions of test modules there, one at a time; it starts with the first."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), _prepare)

    def run(self, module: str, function: str, arguments: dict[str, Any]) -> None:
        """Call a module's function, both given by name, and raise what it raises."""
        before = os.environ.get(INTERPRET)
        os.environ[INTERPRET] = "1"  # inherited by the process when it starts
        try:
            self._pool.submit(_call, module, function, arguments).result()
        finally:
            del os.environ[INTERPRET]
            if before is not None:
                os.environ[INTERPRET] = before

    def close(self) -> None:
        self._pool.shutdown()


def _prepare() -> None:
    torch.set_num_threads(1)


def _call(module: str, function: str, arguments: dict[str, Any]) -> None:
    from seqbench_kernels.triton_support import INTERPRETED

    if not INTERPRETED:
        raise RuntimeError(f"the process for interpreted tests was started without {INTERPRET}=1")
    torch.manual_seed(0)
    getattr(importlib.import_module(module), function)(**arguments)
