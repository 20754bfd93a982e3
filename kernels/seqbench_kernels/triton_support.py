"""Where kernels written in Triton can run.

Triton is installed on Linux on x86-64 only, and its import takes a while. A module of kernels imports it plainly; the
launchers beside it import that module inside the functions that launch, and this module imports neither.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec

import torch
from torch import Tensor

# What Triton itself takes for yes in its environment variables.
_YES = ("1", "true", "on", "y", "yes")

TRITON_INSTALLED = find_spec("triton") is not None

# Kernels become functions of the compiler or of the interpreter where they are defined, so the variable counts once.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in _YES

DTYPES = (torch.float32, torch.bfloat16)


def triton_unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """The `unavailable` of paths called "triton": they serve CUDA tensors, and CPU tensors in Triton's interpreter."""
    if not TRITON_INSTALLED:
        return "Triton is not installed"
    if device.type == "cpu" and not INTERPRETED:
        return "Triton compiles for GPUs only; with TRITON_INTERPRET=1 in the environment it interprets its kernels"
    if device.type not in ("cpu", "cuda"):
        return "its kernels are tested on CUDA devices only"
    if dtype not in DTYPES:
        return "it computes in float32 and bfloat16"
    return None


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Inside, kernels are launched on the device of `tensor`; Triton takes the current one."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
