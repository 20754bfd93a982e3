"""The fused CUDA kernel of the package mamba_ssm, where that package is installed."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

MAMBA_SSM = "mamba_ssm"


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the package cannot serve tensors of a device and dtype, or None when it can.

    A package that is there and cannot be imported is an error when it runs, not an absence.
    """
    if device.type != "cuda":
        return "it is a CUDA kernel"
    if dtype != torch.float32:
        return "it is called in fp32 only"
    return None if find_spec("mamba_ssm") is not None else "the package mamba_ssm is not installed"


def selective_scan_mamba_ssm(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> tuple[Tensor, Tensor]:
    """The selective scan of `selective_scan` from a zero state, fp32.

    The kernel has no gradient for the final state: a backward pass that reaches it raises RuntimeError.
    """
    kernel = import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
    by_channel = [tensor.transpose(1, 2).contiguous() for tensor in (u, dt, B, C)]
    outputs, final_state = kernel(
        by_channel[0], by_channel[1], A, by_channel[2], by_channel[3], D, return_last_state=True
    )
    return outputs.transpose(1, 2), _RefuseGradient.apply(final_state, outputs)


class _RefuseGradient(torch.autograd.Function):
    """Hands a tensor through and raises when a gradient arrives, where autograd would otherwise lose it in silence."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, source: Tensor) -> Tensor:
        # `source` ties the result to the graph although `value` itself may carry none.
        del ctx, source
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            "mamba_ssm's selective scan has no gradient for its final state; detach the state, or call"
            " seqbench_kernels.selective_scan.selective_scan_loop, which has one"
        )
