"""The Triton kernels of the package mamba_ssm, where that package is installed.

Not run on a GPU by this project: the call is tested against a stand-in with the published interface.
"""

from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

MAMBA_SSM = "mamba_ssm"

# The chunk that published Mamba-2 models are trained with, a power of two as the kernels want.
_CHUNK = 256


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the package cannot serve tensors of a device and dtype, or None when it can.

    A package that is there and cannot be imported is an error when it runs, not an absence.
    """
    if device.type != "cuda":
        return "its kernels are for CUDA"
    if dtype != torch.float32:
        return "it is called in fp32 only"
    return None if find_spec("mamba_ssm") is not None else "the package mamba_ssm is not installed"


def ssd_scan_mamba_ssm(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The scan of `ssd_scan` in fp32; the kernels multiply matrices in TF32, as Triton does unless told otherwise."""
    kernel = import_module("mamba_ssm.ops.triton.ssd_combined").mamba_chunk_scan_combined
    sequences = (tensor.contiguous() for tensor in (x, dt))
    maps = (tensor.contiguous() for tensor in (B, C))
    outputs, final_state = kernel(
        *sequences, A, *maps, chunk_size=_CHUNK, D=D, initial_states=initial_state, return_final_states=True
    )
    return outputs, final_state
