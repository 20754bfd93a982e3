"""The definition of ridge solves, one token at a time, and of the two ways to solve."""

import torch
from torch import Tensor

# Below it the norm of a state is that of no key at all: a solve divides by it.
LEAST_NORM = 1e-12


def ridge_solves_reference(
    query: Tensor,
    key: Tensor,
    log_decay: Tensor,
    strength: Tensor,
    ridge: Tensor | float,
    iterations: int = 0,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """H_t = exp(g_t) H_(t-1) + b_t k_t k_t^T and x_t = (H_t + ridge)^(-1) q_t, per row and head.

    MesaNet, arXiv 2506.05233, with a ridge per channel that is solved exactly; Gated KalmaNet, arXiv 2511.21016, with a
    ridge in proportion to the norm of H_t and Chebyshev steps, whose gradient is implicit: that of an exact solve, with
    the same steps in place of the transposed one. Arguments and results as in `ridge_solves`, nothing is promoted.
    """
    batch, length, heads, size = key.shape
    state = key.new_zeros(batch, heads, size, size) if initial_state is None else initial_state
    outputs = []
    for step in range(length):
        k = key[:, step]
        written = (strength[:, step, :, None] * k).unsqueeze(-1) * k.unsqueeze(-2)
        state = log_decay[:, step].exp()[..., None, None] * state + written
        q = query[:, step]
        if isinstance(ridge, Tensor):
            outputs.append(torch.linalg.solve(state + torch.diag_embed(ridge), q))
        else:
            outputs.append(_implicit(state, q, ridge, iterations))
    return torch.stack(outputs, dim=1), state


def chebyshev(state: Tensor, right: Tensor, ridge: float, iterations: int) -> Tensor:
    """About (H + lambda)^(-1) b by Chebyshev's semi-iteration, lambda = ridge |H|, for symmetric H with no eigenvalue
    below 0: those of H + lambda lie from lambda to lambda + |H|, |H| the Frobenius norm.

    Args:
        state: (..., size, size).
        right: (..., size).
        ridge: lambda over the norm.
        iterations: how often the residual is taken.
    """
    norm = norms(state)
    step = 2 / ((2 * ridge + 1) * norm)
    rho = (1 / (2 * ridge + 1) / 2) ** 2
    before, x, weight = torch.zeros_like(right), step * right, 2.0
    for _ in range(iterations):
        weight = 1 / (1 - rho * weight)
        residual = (state @ x.unsqueeze(-1)).squeeze(-1) + ridge * norm * x - right
        before, x = x, weight * x - weight * step * residual - (weight - 1) * before
    return x


def norms(state: Tensor) -> Tensor:
    """(..., 1): Frobenius norms of (..., size, size), of nothing a little above 0."""
    return torch.linalg.vector_norm(state, dim=(-2, -1)).clamp(min=LEAST_NORM).unsqueeze(-1)


def _implicit(state: Tensor, right: Tensor, ridge: float, iterations: int) -> Tensor:
    """A Chebyshev solve whose value is the steps' and whose gradient that of an exact solve, by the same steps."""
    with torch.no_grad():
        x = chebyshev(state, right, ridge, iterations)
    # A function of x that is 0 here, with the derivatives of the residual that the exact solution has none of.
    residual = right - (state @ x.unsqueeze(-1)).squeeze(-1) - ridge * norms(state) * x
    solved = residual - residual.detach()
    if solved.requires_grad:
        fixed = state.detach()
        solved.register_hook(
            lambda gradient: None if gradient is None else chebyshev(fixed, gradient, ridge, iterations)
        )
    return x + solved
