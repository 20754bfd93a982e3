"""The public grouped phase scan, and which path it takes."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from seqbench_kernels.devices import cpu_unavailable
from seqbench_kernels.dispatch import REFERENCE, Operation, Path
from seqbench_kernels.phase_scan.operators import scan
from seqbench_kernels.phase_scan.reference import phase_scan_plain
from seqbench_kernels.triton_support import triton_unavailable


def phase_scan(
    increments: Tensor,
    groups: Tensor | None,
    number_of_groups: int,
    initial: Tensor | None = None,
    scale_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """R_t = wrap(S_0[g_t] + sum of the increments of the tokens tau <= t of the row that are in group g_t).

    PMNet, arXiv 2605.13370: the recurrence of the write. Time and memory are linear in the tokens but for a sort.

    Args:
        increments: (batch, length, channels) radians, each below 3e6.
        groups: (batch, length) int64 group of each token; `number_of_groups` itself marks padding, which enters no
            sum. None puts every token into group 0.
        number_of_groups: rows of the state table.
        initial: S_0, (batch, groups, channels): int32 in steps of 2^-32 turns as the scan returns it, or floating-point
            radians, through which gradients flow unscaled; None is zero.
        scale_gradient: divide the gradient that reaches the increment of a token by sqrt(c), c the number of tokens
            of the same row and group in this call (the published training rule).

    Returns:
        The phases R, (batch, length, channels) fp32 radians, zero at padding, and the final table, (batch, groups,
        channels) int32 steps: for each group the R of its last token, or S_0 where it had none. The table carries no
        gradient.

    The fast paths form sums of whole steps, which depend neither on the order of the tokens nor on how a sequence is
    cut into calls; the reference forms them in fp64.

    Raises UnknownPathError when the path that was asked for (seqbench_kernels.dispatch) cannot serve.
    """
    path = OPERATION.choose(increments.device, increments.dtype)
    if path == REFERENCE:
        phases, table = phase_scan_plain(increments, groups, number_of_groups, initial, scale_gradient)
        return phases.float(), table
    phases, table = scan(increments, groups, number_of_groups, initial, scale_gradient, path)
    return phases, table


def _cases(device: torch.device) -> Mapping[str, Callable[[], tuple[Any, ...]]]:
    def case(batch: int, length: int, channels: int, groups: int) -> Callable[[], tuple[Any, ...]]:
        def build() -> tuple[Any, ...]:
            increments = torch.rand(batch, length, channels, device=device).requires_grad_()
            chosen = torch.randint(groups, (batch, length), device=device)
            return increments, chosen, groups, None, True

        return build

    # Channels are slots times angles; groups those of the last level but one.
    return {"119m": case(1, 512, 4 * 512, 16), "tiny": case(64, 40, 4 * 16, 16)}


OPERATION = Operation(
    "phase_scan",
    phase_scan,
    (Path("cpu", cpu_unavailable), Path("triton", triton_unavailable), Path(REFERENCE)),
    _cases,
)
