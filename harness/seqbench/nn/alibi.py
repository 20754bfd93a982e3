"""Position encodings that are masks: ALiBi, and hard ALiBi."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def alibi_slopes(heads: int) -> list[float]:
    """How much a head's scores fall with each token of distance: from 2^(-8 / heads) on, each the first's next power.

    Press et al., arXiv 2108.12409, section 3. Where the heads are no power of two, the paper's footnote on their
    number: the slopes of the next lower power, and then every second one of twice as many.
    """
    power = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8 * (head + 1) / power) for head in range(power)]
    return slopes + [2.0 ** (-4 * (2 * head + 1) / power) for head in range(heads - power)]


def head_windows(encoding: str, heads: int, window: int | None) -> list[int | None]:
    """How many tokens each head sees, its own included; None for all.

    With hard ALiBi (Jelassi et al., arXiv 2402.01032, section 4) head i of the first half sees i + 1, and the others as
    many as without positions: half of the heads are limited in the authors' experiments too.
    """
    limited = heads // 2 if encoding == "hard-alibi" else 0
    short = [head + 1 if window is None else min(head + 1, window) for head in range(limited)]
    return [*short, *[window] * (heads - limited)]


def score_mask(
    slopes: Sequence[float] | None,
    windows: Sequence[int | None],
    length: int,
    total: int,
    prefix_valid: Tensor | None,
    like: Tensor,
) -> Tensor:
    """What scaled_dot_product_attention is to add to the scores of the last `length` of `total` places.

    Args:
        slopes: of each head, or None for no bias.
        windows: how many keys each head sees, the query's own included; None for all earlier ones.
        length: number of queries.
        total: number of keys, of which the queries' own are the last.
        prefix_valid: (batch, total - length) bool, which earlier places hold a token; None if all do.
        like: a tensor of the dtype and on the device of the mask.

    Returns:
        (batch or 1, heads, length, total): minus slope x distance, and minus infinity where a head sees nothing.
    """
    places = torch.arange(total, device=like.device)
    distance = places[total - length :, None] - places
    limits = torch.tensor([total if window is None else window for window in windows], device=like.device)
    visible = ((distance >= 0) & (distance < limits[:, None, None])).unsqueeze(0)
    if prefix_valid is not None:
        visible = visible & F.pad(prefix_valid, (0, length), value=True)[:, None, None, :]
    steepness = torch.tensor([0.0] * len(windows) if slopes is None else slopes, device=like.device)
    bias = -steepness[:, None, None] * distance
    return bias.masked_fill(~visible, -torch.inf).to(like.dtype)
