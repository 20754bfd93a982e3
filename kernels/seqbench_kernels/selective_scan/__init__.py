"""Selective scan: Mamba's recurrence with input-dependent step sizes, input and output maps."""

import torch
from torch import Tensor

from seqbench_kernels.selective_scan.cpu import selective_scan_loop
from seqbench_kernels.selective_scan.cuda import mamba_ssm_installed, selective_scan_mamba_ssm
from seqbench_kernels.selective_scan.reference import selective_scan_reference

__all__ = ["selective_scan", "selective_scan_loop", "selective_scan_path", "selective_scan_reference"]


def selective_scan(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """h_t = exp(dt_t A) h_(t-1) + dt_t B_t u_t and y_t = C_t h_t + D u_t; `selective_scan_reference` defines it.

    Args:
        u: (batch, length, channels) inputs, length at least 1.
        dt: (batch, length, channels) step sizes, not negative; a step size of 0 leaves the state as it is.
        A: (channels, state), negative for a state that decays.
        B: (batch, length, state) input maps, shared by the channels.
        C: (batch, length, state) output maps, shared by the channels.
        D: (channels,) weight of the direct path.
        initial_state: (batch, channels, state), the final state of the tokens before; None is zero.

    Returns:
        y (batch, length, channels) and the final state (batch, channels, state), in fp64 when an argument is, else in
        fp32: half-precision arguments are widened, since errors of the state add up over the whole sequence.

    Raises:
        ValueError: for shapes that do not fit each other.
    """
    _check_shapes(u, dt, A, B, C, D, initial_state)
    arguments = [u, dt, A, B, C, D] if initial_state is None else [u, dt, A, B, C, D, initial_state]
    dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in arguments) else torch.float32
    widened = [tensor.to(dtype) for tensor in arguments]
    if initial_state is None and dtype == torch.float32 and _uses_mamba_ssm(u.device):
        return selective_scan_mamba_ssm(*widened)
    return selective_scan_loop(*widened)


def selective_scan_path(device: torch.device | str) -> str:
    """Which implementation `selective_scan` takes on a device, in words."""
    if _uses_mamba_ssm(torch.device(device)):
        return "selective scan by mamba_ssm's kernel (torch loop where a state is continued)"
    return "selective scan by a chunked torch loop"


def _uses_mamba_ssm(device: torch.device) -> bool:
    return device.type == "cuda" and mamba_ssm_installed()


def _check_shapes(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial_state: Tensor | None
) -> None:
    if u.dim() != 3 or A.dim() != 2 or u.shape[1] == 0:
        raise ValueError(
            "u must be (batch, length, channels) with at least one token and A (channels, state), not"
            f" {tuple(u.shape)} and {tuple(A.shape)}"
        )
    batch, length, channels = u.shape
    state = A.shape[1]
    wanted = {
        "dt": (dt, (batch, length, channels)),
        "A": (A, (channels, state)),
        "B": (B, (batch, length, state)),
        "C": (C, (batch, length, state)),
        "D": (D, (channels,)),
    }
    if initial_state is not None:
        wanted["initial_state"] = (initial_state, (batch, channels, state))
    for name, (tensor, shape) in wanted.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must be {shape} beside u {tuple(u.shape)}, not {tuple(tensor.shape)}")
