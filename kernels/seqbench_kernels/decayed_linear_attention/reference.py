"""The definition of decayed linear attention, one token at a time."""

import torch
from torch import Tensor


def decayed_linear_attention_reference(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None = None, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """S_t = diag(exp(log_decay_t)) S_(t-1) + conj(k_t) v_t^T and o_t = S_t^T q_t, per row and head.

    Yang et al., arXiv 2312.06635, equation 3, whose scaling of q is the caller's; a decay per head is the same number
    in every channel. The conjugate is that of Phase-Associative Memory, and nothing for real numbers. Differentiable by
    autograd in any floating-point or complex dtype; the graph grows with the length. Arguments and results as in
    `decayed_linear_attention`, nothing is promoted.
    """
    batch, length, heads, key_size = q.shape
    state = q.new_zeros(batch, heads, key_size, v.shape[-1]) if initial_state is None else initial_state
    if log_decay is not None:
        log_decay = log_decay.view(batch, length, heads, -1, 1)
    outputs = []
    for step in range(length):
        if log_decay is not None:
            state = log_decay[:, step].exp() * state
        state = state + k[:, step].conj().unsqueeze(-1) * v[:, step].unsqueeze(-2)
        outputs.append((state * q[:, step].unsqueeze(-1)).sum(dim=-2))
    return torch.stack(outputs, dim=1), state
