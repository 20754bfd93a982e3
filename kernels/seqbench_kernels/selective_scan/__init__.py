"""Selective scan: Mamba's recurrence with input-dependent step sizes, input and output maps."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from seqbench_kernels.arguments import computing_dtype, require_shapes
from seqbench_kernels.dispatch import REFERENCE, Operation, Path
from seqbench_kernels.selective_scan.cuda import MAMBA_SSM, selective_scan_mamba_ssm, unavailable
from seqbench_kernels.selective_scan.operators import selective_scan_loop
from seqbench_kernels.selective_scan.reference import selective_scan_reference

__all__ = ["OPERATION", "selective_scan", "selective_scan_loop", "selective_scan_path", "selective_scan_reference"]


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
        UnknownPathError: when the path that was asked for (seqbench_kernels.dispatch) cannot serve.
    """
    _check_shapes(u, dt, A, B, C, D, initial_state)
    arguments = [u, dt, A, B, C, D] if initial_state is None else [u, dt, A, B, C, D, initial_state]
    dtype = computing_dtype(*arguments)
    widened = [tensor.to(dtype) for tensor in arguments]
    path = OPERATION.choose(u.device, dtype)
    if path == REFERENCE:
        return selective_scan_reference(*widened)
    if path == MAMBA_SSM:
        if initial_state is None:
            return selective_scan_mamba_ssm(*widened)
        # Its kernel starts from zero: this path continues a state by the loop, and the record says so.
        OPERATION.taken.add(_LOOP)
    return selective_scan_loop(*widened)


def selective_scan_path(device: torch.device | str) -> str:
    """Which implementation `selective_scan` takes on a device in fp32, in words."""
    return _WORDS[OPERATION.expected(device)]


_LOOP = "cpu"
_WORDS = {
    MAMBA_SSM: "selective scan by mamba_ssm's kernel (torch loop where a state is continued)",
    _LOOP: "selective scan by a chunked torch loop",
    REFERENCE: "selective scan by its reference, one token at a time",
}


def _cases(device: torch.device) -> Mapping[str, Callable[[], tuple[Any, ...]]]:
    def case(batch: int, length: int, channels: int, state: int) -> Callable[[], tuple[Any, ...]]:
        def build() -> tuple[Any, ...]:
            # Initial values of Mamba: step sizes from 0.001 to 0.1, A from -1 to -state.
            u, B, C = (torch.randn(batch, length, size, device=device) for size in (channels, state, state))
            dt = torch.empty(batch, length, channels, device=device).uniform_(0.001, 0.1)
            A = -torch.arange(1.0, state + 1, device=device).repeat(channels, 1)
            return tuple(tensor.requires_grad_() for tensor in (u, dt, A, B, C, torch.ones(channels, device=device)))

        return build

    sizes = ((64, 40, 128, 16), (4, 512, 256, 16), (1, 512, 1536, 16))
    return {f"{b} x {t} tokens, {c} channels, state {n}": case(b, t, c, n) for b, t, c, n in sizes}


OPERATION = Operation(
    "selective_scan",
    selective_scan,
    # The loop is written for CPU and serves other devices too.
    (Path(MAMBA_SSM, unavailable), Path(_LOOP), Path(REFERENCE, by_default=False)),
    _cases,
)


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
    require_shapes(
        "u",
        u,
        {
            "dt": (dt, (batch, length, channels)),
            "A": (A, (channels, state)),
            "B": (B, (batch, length, state)),
            "C": (C, (batch, length, state)),
            "D": (D, (channels,)),
            "initial_state": (initial_state, (batch, channels, state)),
        },
    )
