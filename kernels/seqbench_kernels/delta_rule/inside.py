"""What happens inside chunks, for all of them at once: everything but the state that comes in.

With G_i the sum of log decays up to token i, A_ij = b_i sum_c k_ic k_jc exp(G_i - G_j)_c for j < i, and P_ij likewise
with q_i and without b for j <= i, the errors U of a chunk that starts from the state S solve

    (I + A) U = b (V - (K exp(G)) S),    so U = U0 - W S,

and the outputs are (Q exp(G)) S + P U, the state after the chunk M S + N with

    M = diag(exp(G_C)) - (K exp(G_C - G))^T W,    N = (K exp(G_C - G))^T U0.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from seqbench_kernels.delta_rule.chunks import Decays, Tokens, decays_of


class Inside(NamedTuple):
    """Of all chunks of a piece; see above.

    Attributes:
        decays: None where there are none.
        system: A without its factor b, (chunks, streams, size, size).
        scores: P, likewise.
        solved: W and U0 side by side, (chunks, streams, size, key_size + value_size).
        read: Q exp(G), (chunks, streams, size, key_size).
        asked: K exp(G), likewise.
        written: K exp(G_C - G), likewise.
        transition: M, (chunks, streams, key_size, key_size).
        added: N, (chunks, streams, key_size, value_size).
    """

    decays: Decays | None
    system: Tensor
    scores: Tensor
    solved: Tensor
    read: Tensor
    asked: Tensor
    written: Tensor
    transition: Tensor
    added: Tensor


def inside(tokens: Tokens) -> Inside:
    """From tokens laid out in chunks."""
    query, key, value, log_decay, strength = tokens
    key_size = key.shape[-1]
    decays = None if log_decay is None else decays_of(log_decay)
    read, asked, written = query, key, key
    if decays is not None:
        read, asked, written = query * decays.from_start, key * decays.from_start, key * decays.to_end
    system, scores = _scores(tokens, read, asked, decays)
    strength = strength.unsqueeze(-1)
    right = torch.cat((asked, value), dim=-1).mul_(strength)
    solved = torch.linalg.solve_triangular(system * strength, right, upper=False, unitriangular=True)
    both = written.transpose(-1, -2) @ solved
    transition = both[..., :key_size].neg()
    diagonal = transition.diagonal(dim1=-2, dim2=-1)
    diagonal.add_(1.0 if decays is None else decays.whole.squeeze(-2))
    return Inside(decays, system, scores, solved, read, asked, written, transition, both[..., key_size:])


def _scores(tokens: Tokens, read: Tensor, asked: Tensor, decays: Decays | None) -> tuple[Tensor, Tensor]:
    """A without b, strictly lower, and P, lower triangular."""
    query, key = tokens.query, tokens.key
    if decays is None or decays.between is None:
        back = (key if decays is None or decays.backwards is None else key * decays.backwards).transpose(-1, -2)
        return (asked @ back).tril_(-1), (read @ back).tril_()
    if decays.between.dim() == 4:
        system, scores = key @ key.transpose(-1, -2), query @ key.transpose(-1, -2)
        return system.mul_(decays.between).tril_(-1), scores.mul_(decays.between)
    # (size, 2, key_size) x (size, key_size, size): each token asks for the keys before it, decayed up to it.
    decayed = decays.between * key.unsqueeze(2)
    both = torch.stack((key, query), dim=3) @ decayed.transpose(-1, -2)
    return both[..., 0, :].tril(-1), both[..., 1, :]
