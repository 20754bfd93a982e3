"""The definition of covariance attention, all scores at once."""

import torch
from torch import Tensor


def covariance_attention_reference(
    query: Tensor,
    probe: Tensor,
    key: Tensor,
    value: Tensor,
    window: int | None = None,
    prefix_valid: Tensor | None = None,
) -> Tensor:
    """o_t = sum_s p_ts v_s - Cov_p(v, r_t . k), with p the softmax of q_t . k_s / sqrt(size) over what t sees.

    Parallax, arXiv 2605.29157. The covariance is sum_s p_ts (c_ts - mean) v_s with c_ts = r_t . k_s, which is not
    scaled, and their mean under p. Differentiable by autograd in any floating-point dtype; memory grows with the square
    of the length. Arguments and results as in `covariance_attention`, nothing is promoted.
    """
    group, length, total = query.shape[1] // key.shape[1], query.shape[2], key.shape[2]
    key, value = (tensor.repeat_interleave(group, dim=1) for tensor in (key, value))
    hidden = hidden_pairs(length, total, window, prefix_valid, 0, length, 0, total, key.device)
    scores = (query @ key.mT) * query.shape[3] ** -0.5
    weights = scores.masked_fill(hidden, -torch.inf).softmax(dim=-1)
    along = probe @ key.mT
    mean = (weights * along).sum(dim=-1, keepdim=True)
    return (weights * (1 + mean - along)) @ value


def hidden_pairs(
    length: int,
    total: int,
    window: int | None,
    prefix_valid: Tensor | None,
    first: int,
    stop: int,
    first_key: int,
    stop_key: int,
    device: torch.device,
) -> Tensor:
    """(batch or 1, 1, queries, keys) bool, which of some keys some queries do not see; both are slices.

    The queries are the last `length` of `total` places.
    """
    places = torch.arange(total - length + first, total - length + stop, device=device).unsqueeze(1)
    distance = places - torch.arange(first_key, stop_key, device=device)
    hidden = (distance < 0)[None, None]
    if window is not None:
        hidden = hidden | (distance >= window)
    if prefix_valid is not None:
        valid = torch.nn.functional.pad(prefix_valid, (0, length), value=True)
        hidden = hidden | ~valid[:, None, None, first_key:stop_key]
    return hidden
