"""What scans over groups share: the tokens of each row sorted by group, running sums over them, and their gradients.

Linear in the number of tokens but for the sort; rows never meet.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Segments(NamedTuple):
    """The tokens of each row sorted by group, stably, so that a group's tokens keep their order in time.

    B rows of T tokens. Places are counted over all rows, b * T + t. A segment is a row's tokens of one group, padding
    included; there are S of them, in the order of their places.

    Attributes:
        order: (B * T,), the place of each sorted token before sorting.
        inverse: (B * T,), the place of each token after sorting.
        segment: (B * T,), the segment of each sorted token.
        first: (S,), the sorted place of each segment's first token.
        last: (S,), that of its last token.
        row: (S,), the row of each segment.
        group: (S,), its group.
    """

    order: Tensor
    inverse: Tensor
    segment: Tensor
    first: Tensor
    last: Tensor
    row: Tensor
    group: Tensor

    def sort(self, values: Tensor) -> Tensor:
        """`values`, (B, T, channels), in the order of the groups: (B * T, channels)."""
        return values.reshape(-1, values.shape[-1]).index_select(0, self.order)

    def unsort(self, values: Tensor, batch: int) -> Tensor:
        """Undo `sort`: (B * T, channels) to (B, T, channels)."""
        return values.index_select(0, self.inverse).view(batch, -1, values.shape[-1])

    def counts(self) -> Tensor:
        """The number of tokens of each segment, (S,)."""
        return self.last - self.first + 1


def sort_by_group(groups: Tensor) -> Segments:
    """The segments of `groups`, (B, T) int64."""
    batch, length = groups.shape
    ordered, order = groups.sort(dim=1, stable=True)
    order = (order + torch.arange(batch, device=groups.device).unsqueeze(1) * length).flatten()
    places = torch.arange(batch * length, device=groups.device)
    starts = torch.ones(batch, length, dtype=torch.bool, device=groups.device)
    torch.ne(ordered[:, 1:], ordered[:, :-1], out=starts[:, 1:])
    first = places[starts.flatten()]
    return Segments(
        order=order,
        inverse=torch.empty_like(order).scatter_(0, order, places),
        segment=starts.flatten().cumsum(dim=0) - 1,
        first=first,
        last=torch.cat((first[1:], places.new_full((1,), batch * length))) - 1,
        row=first // length,
        group=ordered.flatten()[first],
    )


def running_sums(
    ordered: Tensor, segments: Segments, batch: int, number_of_groups: int, initial: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sums over the tokens of the same row and group up to each token, and what they end at.

    A sum is a difference of two sums over the row: `ordered` must be of a dtype in which that loses nothing that
    matters. int32 overflows, which is what sums modulo 2^32 want.

    Args:
        ordered: the values as `Segments.sort` returns them, (B * T, channels).
        segments: of the tokens' groups; the group `number_of_groups` is padding.
        batch: B.
        number_of_groups: rows of the table.
        initial: (B, number_of_groups, channels), where each group's sum starts; None is zero.

    Returns:
        The sums in the same order, (B * T, channels), zero at padding, and the table of every group's last one, (B,
        number_of_groups, channels), both in the dtype of `ordered`.
    """
    channels = ordered.shape[-1]
    running = ordered.view(batch, -1, channels).cumsum(dim=1, dtype=ordered.dtype).view(-1, channels)
    # The row after the last group belongs to padding.
    table = ordered.new_zeros(batch, number_of_groups + 1, channels)
    if initial is not None:
        table[:, :number_of_groups] = initial
    before = running.index_select(0, segments.first).sub_(ordered.index_select(0, segments.first))
    start = table[segments.row, segments.group].sub_(before)
    running.add_(start.index_select(0, segments.segment))
    _clear(running, segments, number_of_groups)
    table[segments.row, segments.group] = running.index_select(0, segments.last)
    return running, table[:, :number_of_groups]


def running_sums_gradient(
    gradient: Tensor, segments: Segments, number_of_groups: int, scale_by_count: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of the values and of the initial table of `running_sums` from the gradient of its sums.

    Args:
        gradient: of the sums, (B, T, channels), not sorted; what stands at padding is ignored.
        segments: as in the forward pass.
        number_of_groups: rows of the table.
        scale_by_count: divide the gradient of a token's value by sqrt(c), c the number of tokens of its row and group
            (PMNet's training rule, arXiv 2605.13370). The initial table's gradient is never divided.

    Returns:
        The gradients of the values, (B, T, channels), not sorted, in the dtype of `gradient`, and of the initial
        table, (B, number_of_groups, channels) fp64.
    """
    batch, _, channels = gradient.shape
    ordered = segments.sort(gradient)
    # fp64: a segment's sum is a difference of two prefix sums over the whole row.
    prefix = ordered.view(gradient.shape).cumsum(dim=1, dtype=torch.float64).view(-1, channels)
    ends = prefix.index_select(0, segments.last)
    remaining = ends.index_select(0, segments.segment).sub_(prefix).add_(ordered)
    table = remaining.new_zeros(batch, number_of_groups + 1, channels)
    table[segments.row, segments.group] = remaining.index_select(0, segments.first)
    if scale_by_count:
        factors = segments.counts().double().rsqrt_()
        remaining.mul_(factors.index_select(0, segments.segment).unsqueeze(1))
    _clear(remaining, segments, number_of_groups)
    return segments.unsort(remaining.to(gradient.dtype), batch), table[:, :number_of_groups]


def _clear(ordered: Tensor, segments: Segments, padding: int) -> None:
    """Set what stands at tokens of the group `padding` to zero."""
    is_padding = segments.group == padding
    if is_padding.any():
        ordered.masked_fill_(is_padding[segments.segment].unsqueeze(1), 0)
