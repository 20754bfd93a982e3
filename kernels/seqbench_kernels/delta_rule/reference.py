"""The definition of the gated delta rule, one token at a time."""

import torch
from torch import Tensor


def delta_rule_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    strength: Tensor,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S_t = S' + k_t u_t^T with S' = diag(exp(g_t)) S_(t-1) and u_t = b_t (v_t - S'^T k_t); o_t = S_t^T q_t.

    Decay, reading of what the key recalls, writing of the error, reading: in that order, per row and head. Yang, Kautz
    and Hatamizadeh, arXiv 2412.06464, equation 10, with the decay a scalar; without decay the delta rule of Yang et
    al., arXiv 2406.06484; with one per channel of the keys that of Kimi Linear, arXiv 2510.26692. Differentiable by
    autograd in any floating-point dtype; the graph grows with the length. Arguments and results as in `delta_rule`,
    nothing is promoted.
    """
    batch, length, heads, key_size = key.shape
    state = key.new_zeros(batch, heads, key_size, value.shape[-1]) if initial_state is None else initial_state
    outputs = []
    for step in range(length):
        if log_decay is not None:
            decay = log_decay[:, step].exp()
            state = state * (decay.unsqueeze(-1) if decay.dim() == 3 else decay[..., None, None])
        k = key[:, step].unsqueeze(-1)
        recalled = (state * k).sum(dim=-2)
        error = strength[:, step].unsqueeze(-1) * (value[:, step] - recalled)
        state = state + k * error.unsqueeze(-2)
        outputs.append((state * query[:, step].unsqueeze(-1)).sum(dim=-2))
    return torch.stack(outputs, dim=1), state
