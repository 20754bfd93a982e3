"""Ridge solves by chunks of tokens, forward and backward.

The states of a chunk's tokens are formed at once, from that before the chunk: H_t = exp(G_t) H + sum over j <= t of
exp(G_t - G_j) b_j k_j k_j^T, G the running sum of log decays. Kept for the backward pass are the states before the
chunks and the solutions alone; the states in between are formed again.

With y_t the solution for the gradient of x_t, the gradient of q_t is y_t and that of H_t is -y_t x_t^T; a ridge of
r |H_t| adds -r (y_t . x_t) H_t / |H_t|.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from seqbench_kernels.ridge_solves.flops import CHUNK
from seqbench_kernels.ridge_solves.reference import chebyshev, norms


class _Chunk(NamedTuple):
    """A chunk's states and what they are made of; n rows are those of the batch times heads.

    Attributes:
        states: (n, tokens, size, size).
        outer: k k^T of each token, of the same shape, strengths aside.
        between: (n, tokens, tokens), decay from token j to token i; 0 where j is later.
        from_start: (n, tokens, 1, 1), decay from before the chunk.
    """

    states: Tensor
    outer: Tensor
    between: Tensor
    from_start: Tensor


def _chunk(before: Tensor, key: Tensor, log_decay: Tensor, strength: Tensor) -> _Chunk:
    logs = log_decay.double().cumsum(dim=1)
    # What is later is hidden before the exponential, which could overflow there.
    later = torch.ones(logs.shape[1], logs.shape[1], dtype=torch.bool, device=logs.device).triu_(1)
    difference = (logs.unsqueeze(2) - logs.unsqueeze(1)).masked_fill_(later, -torch.inf)
    between, from_start = difference.to(key.dtype).exp_(), logs.to(key.dtype).exp_()[..., None, None]
    outer = key.unsqueeze(-1) * key.unsqueeze(-2)
    added = (between * strength.unsqueeze(1)) @ outer.flatten(2)
    return _Chunk(added.view(outer.shape).addcmul_(from_start, before.unsqueeze(1)), outer, between, from_start)


def solves_forward(
    query: Tensor,
    key: Tensor,
    log_decay: Tensor,
    strength: Tensor,
    ridge: Tensor | None,
    relative_ridge: float,
    iterations: int,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Solutions (batch, length, heads, size), the final state, and the states before the chunks, (n, chunks, ...)."""
    rows = [fold(tensor) for tensor in (query, key, log_decay, strength)]
    (count, _, size), batch = rows[0].shape, query.shape[0]
    state = rows[0].new_zeros(count, size, size) if initial_state is None else initial_state.flatten(0, 1)
    starts, solutions = [], []
    for q, k, g, b in zip(*(tensor.split(CHUNK, dim=1) for tensor in rows), strict=True):
        starts.append(state)
        states = _chunk(state, k, g, b).states
        state = states[:, -1].clone()
        solutions.append(_solver(states, ridge, relative_ridge, iterations)(q))
    final = state.view(batch, -1, size, size)
    return unfold(torch.cat(solutions, dim=1), batch), final, torch.stack(starts, dim=1)


def solves_backward(
    gradient: Tensor,
    state_gradient: Tensor | None,
    solution: Tensor,
    key: Tensor,
    log_decay: Tensor,
    strength: Tensor,
    ridge: Tensor | None,
    relative_ridge: float,
    iterations: int,
    starts: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, log decays, strengths, the ridge (empty if relative) and the initial state."""
    rows = [fold(tensor) for tensor in (gradient, solution, key, log_decay, strength)]
    batch, heads, size = key.shape[0], key.shape[2], key.shape[3]
    after = torch.zeros_like(starts[:, 0]) if state_gradient is None else state_gradient.flatten(0, 1)
    by_ridge = key.new_zeros(0) if ridge is None else torch.zeros_like(ridge)
    found: list[tuple[Tensor, ...]] = []
    pieces = list(zip(*(tensor.split(CHUNK, dim=1) for tensor in rows), strict=True))
    for index in range(len(pieces) - 1, -1, -1):
        by_x, x, k, g, b = pieces[index]
        chunk = _chunk(starts[:, index], k, g, b)
        by_query = _solver(chunk.states, ridge, relative_ridge, iterations)(by_x)
        by_states = -by_query.unsqueeze(-1) * x.unsqueeze(-2)
        if ridge is None:
            along = -relative_ridge * (by_query * x).sum(dim=-1, keepdim=True) / norms(chunk.states)
            by_states.addcmul_(along.unsqueeze(-1), chunk.states)
        else:
            by_ridge -= (by_query * x).view(batch, heads, -1, size).sum(dim=(0, 2))
        by_states[:, -1] += after
        after = (chunk.from_start * by_states).sum(dim=1)
        found.append((by_query, *_by_written(chunk, by_states, k, b)))
    by_query, by_key, by_log, by_strength = (torch.cat(parts[::-1], dim=1) for parts in zip(*found, strict=True))
    by_initial = after.view(batch, heads, size, size)
    by_log, by_strength = (unfold(part.unsqueeze(-1), batch).squeeze(-1) for part in (by_log, by_strength))
    return unfold(by_query, batch), unfold(by_key, batch), by_log, by_strength, by_ridge, by_initial


def _by_written(chunk: _Chunk, by_states: Tensor, key: Tensor, strength: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of keys, log decays and strengths from those of the chunk's states.

    G_t stands beside the state of token t as exp(G_t) and beside its outer product as exp(-G_t), and a log decay takes
    part in every sum G from its token on.
    """
    by_outer = (chunk.between.mT @ by_states.flatten(2)).view(by_states.shape)
    recalled = (by_outer @ key.unsqueeze(-1)).squeeze(-1)
    by_strength = (recalled * key).sum(dim=-1)
    by_key = strength.unsqueeze(-1) * (recalled + (by_outer.mT @ key.unsqueeze(-1)).squeeze(-1))
    each = ((by_states * chunk.states).sum(dim=(2, 3)) - strength * by_strength).double()
    return by_key, each.flip(1).cumsum(dim=1).flip(1).to(key.dtype), by_strength


def _solver(states: Tensor, ridge: Tensor | None, relative_ridge: float, iterations: int) -> Callable[[Tensor], Tensor]:
    """What solves for right sides (n, tokens, size) with the states and their ridge."""
    if ridge is None:
        return lambda right: chebyshev(states, right, relative_ridge, iterations)
    repeated = ridge.repeat(states.shape[0] // ridge.shape[0], 1).unsqueeze(1)
    # Positive definite by the ridge. What is no number passes, to be found where training looks for it.
    factor, _ = torch.linalg.cholesky_ex(states + torch.diag_embed(repeated))
    return lambda right: torch.cholesky_solve(right.unsqueeze(-1), factor).squeeze(-1)


def fold(tensor: Tensor) -> Tensor:
    """(batch, length, heads, ...) as (batch x heads, length, ...)."""
    return tensor.transpose(1, 2).flatten(0, 1)


def unfold(rows: Tensor, batch: int) -> Tensor:
    """Undo `fold`."""
    return rows.unflatten(0, (batch, -1)).transpose(1, 2).contiguous()
