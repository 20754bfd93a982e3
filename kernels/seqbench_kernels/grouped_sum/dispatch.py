"""The public grouped sum, and which path it takes.

For states that grow, where the phase scan's wrapped whole numbers do not serve: after a million increments of mean 1 an
fp32 sum moves in steps of 0.06. It serves one ablation and therefore has no Triton path: on a GPU its reference runs,
torch operations on whole tensors.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from seqbench_kernels.devices import cpu_unavailable
from seqbench_kernels.dispatch import REFERENCE, Operation, Path
from seqbench_kernels.grouped_sum.operators import sums
from seqbench_kernels.grouped_sum.reference import grouped_sum_plain


def grouped_sum(
    increments: Tensor,
    groups: Tensor | None,
    number_of_groups: int,
    initial: Tensor | None = None,
    scale_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """z_t = z_0[g_t] + sum of the increments of the tokens tau <= t of the row that are in group g_t.

    Time and memory are linear in the tokens but for a sort; sums are formed in fp64. Paths: "cpu" and "reference", the
    second also on GPUs.

    Args:
        increments: (batch, length, channels), fp32 or fp64.
        groups: (batch, length) int64 group of each token; `number_of_groups` itself marks padding, which enters no
            sum. None puts every token into group 0.
        number_of_groups: rows of the state table.
        initial: z_0, (batch, groups, channels), fp64 as the sum returns it; gradients flow through it unscaled. None
            is zero.
        scale_gradient: divide the gradient that reaches the increment of a token by sqrt(c), c the number of tokens
            of the same row and group in this call, as `phase_scan` does.

    Returns:
        The sums z, (batch, length, channels) in the dtype of the increments, zero at padding, and the final table,
        (batch, groups, channels) fp64: for each group the z of its last token, or z_0 where it had none. The table
        carries no gradient.

    Raises UnknownPathError when the path that was asked for (seqbench_kernels.dispatch) cannot serve.
    """
    path = OPERATION.choose(increments.device, increments.dtype)
    if path == REFERENCE:
        result, table = grouped_sum_plain(increments, groups, number_of_groups, initial, scale_gradient)
        return result.to(increments.dtype), table
    result, table = sums(increments, groups, number_of_groups, initial, scale_gradient)
    return result, table.detach()


def _cases(device: torch.device) -> Mapping[str, Callable[[], tuple[Any, ...]]]:
    def case(batch: int, length: int, channels: int, groups: int) -> Callable[[], tuple[Any, ...]]:
        def build() -> tuple[Any, ...]:
            increments = torch.rand(batch, length, channels, device=device).requires_grad_()
            chosen = torch.randint(groups, (batch, length), device=device)
            return increments, chosen, groups, None, True

        return build

    # Channels are real and imaginary parts of slots times angles; groups those of the last level but one.
    return {"119m": case(1, 512, 2 * 4 * 512, 16), "tiny": case(64, 40, 2 * 4 * 16, 16)}


OPERATION = Operation(
    "grouped_sum",
    grouped_sum,
    (Path("cpu", cpu_unavailable), Path(REFERENCE)),
    _cases,
)
