"""Mamba-2's scan: a recurrence with one decay per head, computed by matrix products over chunks of tokens."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from seqbench_kernels.arguments import computing_dtype, require_shapes
from seqbench_kernels.dispatch import REFERENCE, Operation, Path
from seqbench_kernels.ssd_scan.cuda import MAMBA_SSM, ssd_scan_mamba_ssm, unavailable
from seqbench_kernels.ssd_scan.flops import backward_flops, forward_flops
from seqbench_kernels.ssd_scan.operators import ssd_scan_chunked
from seqbench_kernels.ssd_scan.reference import ssd_scan_reference

__all__ = [
    "OPERATION",
    "backward_flops",
    "forward_flops",
    "ssd_scan",
    "ssd_scan_chunked",
    "ssd_scan_path",
    "ssd_scan_reference",
]


def ssd_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """h_t = exp(dt_t A) h_(t-1) + dt_t x_t B_t^T and y_t = h_t C_t + D x_t; `ssd_scan_reference` defines it.

    Args:
        x: (batch, length, heads, head_dim) inputs, length at least 1.
        dt: (batch, length, heads) step sizes, not negative; a step size of 0 leaves the state as it is.
        A: (heads,), negative for a state that decays.
        B: (batch, length, groups, state) input maps; groups divide the heads, neighbouring heads share one.
        C: (batch, length, groups, state) output maps.
        D: (heads,) weight of the direct path.
        initial_state: (batch, heads, head_dim, state), the final state of the tokens before; None is zero.

    Returns:
        y (batch, length, heads, head_dim) and the final state (batch, heads, head_dim, state), in fp64 when an argument
        is, else in fp32: half-precision arguments are widened, since errors of the state add up over the sequence.

    Raises:
        ValueError: for shapes that do not fit each other.
        UnknownPathError: when the path that was asked for (seqbench_kernels.dispatch) cannot serve.
    """
    _check_shapes(x, dt, A, B, C, D, initial_state)
    arguments = [x, dt, A, B, C, D] if initial_state is None else [x, dt, A, B, C, D, initial_state]
    dtype = computing_dtype(*arguments)
    return _PATHS[OPERATION.choose(x.device, dtype)](*(tensor.to(dtype) for tensor in arguments))


def ssd_scan_path(device: torch.device | str) -> str:
    """Which implementation `ssd_scan` takes on a device in fp32, in words."""
    return _WORDS[OPERATION.expected(device)]


_CHUNKED = "cpu"
_PATHS = {MAMBA_SSM: ssd_scan_mamba_ssm, _CHUNKED: ssd_scan_chunked, REFERENCE: ssd_scan_reference}
_WORDS = {
    MAMBA_SSM: "chunked scan by mamba_ssm's kernels",
    _CHUNKED: "chunked scan by torch's matrix products",
    REFERENCE: "chunked scan by its reference, one token at a time",
}


def _cases(device: torch.device) -> Mapping[str, Callable[[], tuple[Any, ...]]]:
    def case(batch: int, length: int, heads: int, head_dim: int, state: int) -> Callable[[], tuple[Any, ...]]:
        def build() -> tuple[Any, ...]:
            # Initial values of Mamba-2: step sizes from 0.001 to 0.1, A from -1 to -heads.
            x = torch.randn(batch, length, heads, head_dim, device=device)
            B, C = (torch.randn(batch, length, 1, state, device=device) for _ in range(2))
            dt = torch.empty(batch, length, heads, device=device).uniform_(0.001, 0.1)
            A, D = -torch.arange(1.0, heads + 1, device=device), torch.ones(heads, device=device)
            return tuple(tensor.requires_grad_() for tensor in (x, dt, A, B, C, D))

        return build

    sizes = ((64, 40, 4, 32, 64), (4, 512, 4, 32, 64), (1, 512, 24, 64, 128))
    return {f"{b} x {t} tokens, {h} heads of {p}, state {n}": case(b, t, h, p, n) for b, t, h, p, n in sizes}


OPERATION = Operation(
    "ssd_scan",
    ssd_scan,
    # The chunked path is written for CPU and serves other devices too.
    (Path(MAMBA_SSM, unavailable), Path(_CHUNKED), Path(REFERENCE, by_default=False)),
    _cases,
)


def _check_shapes(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial_state: Tensor | None
) -> None:
    if x.dim() != 4 or B.dim() != 4 or x.shape[1] == 0 or B.shape[2] == 0 or x.shape[2] % B.shape[2] != 0:
        raise ValueError(
            "x must be (batch, length, heads, head_dim) with at least one token and B (batch, length, groups, state)"
            f" with groups that divide the heads, not {tuple(x.shape)} and {tuple(B.shape)}"
        )
    batch, length, heads, head_dim = x.shape
    groups, state = B.shape[2:]
    require_shapes(
        "x",
        x,
        {
            "dt": (dt, (batch, length, heads)),
            "A": (A, (heads,)),
            "B": (B, (batch, length, groups, state)),
            "C": (C, (batch, length, groups, state)),
            "D": (D, (heads,)),
            "initial_state": (initial_state, (batch, heads, head_dim, state)),
        },
    )
