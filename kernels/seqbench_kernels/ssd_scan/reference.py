"""The definition of Mamba-2's scan, one token at a time."""

import torch
from torch import Tensor


def ssd_scan_reference(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """h_t = exp(dt_t A) h_(t-1) + dt_t x_t B_t^T and y_t = h_t C_t + D x_t, per row and head.

    Dao and Gu, arXiv 2405.21060, equation 2 with A a scalar times the identity for each head, discretised as in the
    authors' implementation. Differentiable by autograd in any floating-point dtype; the graph grows with the length.
    Arguments and results as in `ssd_scan`, nothing is promoted.
    """
    batch, length, heads, head_dim = x.shape
    state = x.new_zeros(batch, heads, head_dim, B.shape[3]) if initial_state is None else initial_state
    B, C = (tensor.repeat_interleave(heads // tensor.shape[2], dim=2) for tensor in (B, C))
    outputs = []
    for step in range(length):
        step_size = dt[:, step, :, None, None]
        added = step_size * x[:, step, :, :, None] * B[:, step, :, None, :]
        state = (step_size * A[:, None, None]).exp() * state + added
        outputs.append((state * C[:, step, :, None, :]).sum(dim=-1) + D[:, None] * x[:, step])
    return torch.stack(outputs, dim=1), state
