"""What scans over groups share: the tokens of each row sorted by group, running sums over them, and their gradients.

Linear in the number of tokens but for the sort; rows never meet.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Segments(NamedTuple):
    """The tokens of each row sorted by group, stably, so that a group's tokens keep their order in time.

    B rows of T tokens. Places are counted over all rows, b * T + t.

    Attributes:
        groups: (B, T), the group of each sorted token.
        order: (B * T,), the place of each sorted token before sorting.
        inverse: (B * T,), the place of each token after sorting.
        first: (B, T), the place of the first token of each sorted token's group.
        last: (B, T), the place of its last token.
        counts: (B, T), the number of its tokens.
    """

    groups: Tensor
    order: Tensor
    inverse: Tensor
    first: Tensor
    last: Tensor
    counts: Tensor

    def sort(self, values: Tensor) -> Tensor:
        """`values`, (B, T, channels), in the order of the groups."""
        return values.reshape(-1, values.shape[-1]).index_select(0, self.order).view(values.shape)

    def unsort(self, values: Tensor) -> Tensor:
        """Undo `sort`."""
        return values.reshape(-1, values.shape[-1]).index_select(0, self.inverse).view(values.shape)


def sort_by_group(groups: Tensor) -> Segments:
    """The segments of `groups`, (B, T) int64."""
    batch, length = groups.shape
    ordered, order = groups.sort(dim=1, stable=True)
    row_start = torch.arange(batch, device=groups.device).unsqueeze(1) * length
    changes = ordered[:, 1:] != ordered[:, :-1]
    edge = torch.ones(batch, 1, dtype=torch.bool, device=groups.device)
    places = torch.arange(length, device=groups.device).expand(batch, length)
    inverse = torch.empty_like(order).scatter_(1, order, places)
    starts = torch.where(torch.cat((edge, changes), dim=1), places, 0).cummax(dim=1).values
    ends = torch.where(torch.cat((changes, edge), dim=1), places, length).flip(1).cummin(dim=1).values.flip(1)
    return Segments(
        groups=ordered,
        order=(order + row_start).flatten(),
        inverse=(inverse + row_start).flatten(),
        first=starts + row_start,
        last=ends + row_start,
        counts=ends - starts + 1,
    )


def running_sums(
    ordered: Tensor, segments: Segments, number_of_groups: int, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sums over the tokens of the same row and group up to each token, and what they end at.

    A sum is a difference of two sums over the row: `ordered` must be of a dtype in which that loses nothing that
    matters.

    Args:
        ordered: the values as `Segments.sort` returns them, (B, T, channels).
        segments: of the tokens' groups; the group `number_of_groups` is padding.
        number_of_groups: rows of the table.
        initial: (B, number_of_groups, channels), where each group's sum starts; None is zero.

    Returns:
        The sums in the same order, (B, T, channels), and the table of every group's last one, (B, number_of_groups,
        channels), both in the dtype of `ordered`.
    """
    batch, length, channels = ordered.shape
    running = ordered.cumsum(dim=1).view(-1, channels)
    first = segments.first.flatten()
    running.sub_(running.index_select(0, first).sub_(ordered.reshape(-1, channels).index_select(0, first)))
    rows = torch.arange(batch, device=ordered.device).unsqueeze(1).expand(batch, length)
    # The row after the last group collects padding.
    table = ordered.new_zeros(batch, number_of_groups + 1, channels)
    if initial is not None:
        table[:, :number_of_groups] = initial
        running.add_(table[rows, segments.groups].view(-1, channels))
    running = running.view(ordered.shape)
    ends = segments.last == torch.arange(batch * length, device=ordered.device).view(batch, length)
    table[rows[ends], segments.groups[ends]] = running[ends]
    return running, table[:, :number_of_groups]


def running_sums_gradient(
    gradient: Tensor, segments: Segments, initial_groups: int | None, scale_by_count: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the values and of the initial table of `running_sums` from the gradient of its sums.

    Args:
        gradient: of the sums, (B, T, channels), not sorted.
        segments: as in the forward pass.
        initial_groups: rows of the initial table, or None when it needs no gradient.
        scale_by_count: divide the gradient of a token's value by sqrt(c), c the number of tokens of its row and group
            (PMNet's training rule, arXiv 2605.13370). The initial table's gradient is never divided.

    Returns:
        The gradients of the values, (B, T, channels), not sorted, and of the initial table, (B, initial_groups,
        channels), in the dtype of `gradient`.
    """
    batch, length, channels = gradient.shape
    ordered = segments.sort(gradient)
    # fp64: a segment's sum is a difference of two prefix sums over the whole row.
    prefix = ordered.cumsum(dim=1, dtype=torch.float64).view(-1, channels)
    remaining = prefix.index_select(0, segments.last.flatten()).sub_(prefix).add_(ordered.view(-1, channels))
    initial_gradient = None
    if initial_groups is not None:
        table = remaining.new_zeros(batch, initial_groups + 1, channels)
        rows = torch.arange(batch, device=gradient.device).unsqueeze(1).expand(batch, length)
        # Every token of a segment writes the same value, that of the segment's first token.
        table[rows, segments.groups] = remaining.index_select(0, segments.first.flatten()).view(gradient.shape)
        initial_gradient = table[:, :-1].to(gradient.dtype)
    if scale_by_count:
        remaining.mul_(segments.counts.flatten().to(torch.float64).rsqrt_().unsqueeze(1))
    return segments.unsort(remaining.to(gradient.dtype).view(gradient.shape)), initial_gradient
