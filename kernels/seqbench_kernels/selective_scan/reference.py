"""The definition of the selective scan, one token at a time."""

import torch
from torch import Tensor


def selective_scan_reference(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """h_t = exp(dt_t A) h_(t-1) + dt_t B_t u_t and y_t = C_t h_t + D u_t, per row and channel.

    Gu and Dao, arXiv 2312.00752, equations 2a and 2b, with A discretised by zero-order hold (equation 4) and B by
    Euler's rule, as in the authors' implementation. Differentiable by autograd in any floating-point dtype; the graph
    grows with the length. Arguments and results as in `selective_scan`, nothing is promoted.
    """
    batch, length, channels = u.shape
    state = u.new_zeros(batch, channels, A.shape[1]) if initial_state is None else initial_state
    outputs = []
    for step in range(length):
        step_size = dt[:, step, :, None]
        state = (step_size * A).exp() * state + step_size * B[:, step, None, :] * u[:, step, :, None]
        outputs.append((state * C[:, step, None, :]).sum(dim=-1) + D * u[:, step])
    return torch.stack(outputs, dim=1), state
