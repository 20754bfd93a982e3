"""Gradients of running sums over groups on a CPU, whichever way of forming them is the cheapest.

The values' gradient is the sum over the later tokens of the group, its own included: by rows where tokens have many
channels, over all pairs of tokens where they are few, and else by sorting.
"""

import torch
from torch import Tensor

from seqbench_kernels.row_sums import WIDE, row_sums_gradient
from seqbench_kernels.segments import running_sums_gradient, sort_by_group

# Up to this many tokens all pairs are cheaper than the sort (measured on one core of 2, 64 channels).
_SHORT = 64


def grouped_gradients(
    gradient: Tensor, groups: Tensor | None, number_of_groups: int, scale_by_count: bool, with_initial: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of the values and of the initial table from that of the sums.

    Args:
        gradient: of the sums, (B, T, channels); what stands at padding is ignored.
        groups: (B, T) int64, `number_of_groups` being padding; None is group 0 everywhere.
        number_of_groups: rows of the table.
        scale_by_count: divide the gradient of a token's value by sqrt(c), c the number of tokens of its row and group
            (PMNet's training rule, arXiv 2605.13370). The initial table's gradient is never divided.
        with_initial: whether the initial table's gradient is wanted.

    Returns:
        The gradients of the values, (B, T, channels) in the dtype of `gradient`, zero at padding, and of the initial
        table, (B, number_of_groups, channels) fp64; without `with_initial` an empty tensor.
    """
    _, length, channels = gradient.shape
    if channels < WIDE and length <= _SHORT:
        return _pair_sums_gradient(gradient, groups, number_of_groups, scale_by_count, with_initial)
    if channels >= WIDE:
        values, table = row_sums_gradient(gradient, groups, number_of_groups, scale_by_count)
    else:
        segments = sort_by_group(given_groups(groups, gradient))
        values, table = running_sums_gradient(gradient, segments, number_of_groups, scale_by_count)
    return values, table.contiguous() if with_initial else table.new_empty(0)


def given_groups(groups: Tensor | None, values: Tensor) -> Tensor:
    """The groups, zeros for None."""
    return torch.zeros(values.shape[:2], dtype=torch.int64, device=values.device) if groups is None else groups


def _pair_sums_gradient(
    gradient: Tensor, groups: Tensor | None, number_of_groups: int, scale_by_count: bool, with_initial: bool
) -> tuple[Tensor, Tensor]:
    """Masked sums over all pairs of tokens, in the dtype of `gradient`: quadratic in the length."""
    batch, length, channels = gradient.shape
    if groups is None:
        groups = torch.zeros(1, length, dtype=torch.int64)
    same = groups.unsqueeze(2) == groups.unsqueeze(1)
    padding = groups == number_of_groups
    if padding.any():
        same &= ~padding.unsqueeze(1)
        gradient = gradient.masked_fill(padding.unsqueeze(2), 0)
    readers = same.triu().to(gradient.dtype)
    if scale_by_count:
        # Padding, whose sum is empty, counts as one.
        readers *= same.sum(dim=2, keepdim=True).clamp_(min=1).to(gradient.dtype).rsqrt_()
    values = torch.empty_like(gradient, memory_format=torch.contiguous_format)
    # Into a given tensor: otherwise autocast would round the product to its dtype.
    torch.bmm(readers.expand(batch, -1, -1), gradient, out=values)
    if not with_initial:
        return values, gradient.new_empty(0, dtype=torch.float64)
    table = gradient.new_zeros(batch, number_of_groups, channels, dtype=torch.float64)
    rows = groups.clamp(max=number_of_groups - 1).expand(batch, -1).unsqueeze(2).expand(-1, -1, channels)
    return values, table.scatter_add_(1, rows, gradient.to(torch.float64))
