"""The gradients of the chunked delta rule, by hand: each piece is computed again from the states before its chunks.

The gradient of the state goes backwards as that of M S + N: with D_t its gradient after a chunk, before it it is
M^T D + Q'^T dO - W^T P^T dO. All else is products inside chunks. The gradient of a log decay g_t is the sum, from t to
the end of the chunk, of those of the sums G.
"""

import torch
from torch import Tensor

from seqbench_kernels.delta_rule.chunks import Tokens, pieces_of, put, taken, tokens_taken
from seqbench_kernels.delta_rule.inside import Inside, inside


def rule_backward(
    outputs_gradient: Tensor,
    final_gradient: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    strength: Tensor,
    starts: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value, log_decay, strength and the initial state; that of no log_decay is empty."""
    tokens = Tokens(query, key, value, log_decay, strength)
    gradients = [
        key.new_empty(0) if tensor is None else torch.empty_like(tensor, memory_format=torch.contiguous_format)
        for tensor in tokens
    ]
    initial = starts.new_empty(starts.shape[1:])
    for pieces in pieces_of(key, log_decay):
        rows = pieces[0].rows
        after = torch.zeros_like(initial[rows]) if final_gradient is None else final_gradient[rows]
        after = after.flatten(0, 1)
        for piece in reversed(pieces):
            laid = tokens_taken(piece, tokens)
            states = starts[piece.chunks, rows].flatten(1, 2)
            found, after = _piece_backward(laid, states, taken(piece, outputs_gradient), after)
            for values, target in zip(found, gradients, strict=True):
                if values is not None:
                    put(piece, values, target)
        initial[rows] = after.unflatten(0, initial[rows].shape[:2])
    return (*gradients, initial)  # type: ignore[return-value]


def _piece_backward(tokens: Tokens, states: Tensor, out: Tensor, after: Tensor) -> tuple[Tokens, Tensor]:
    """Gradients of a piece's tokens, and of the state before it.

    Args:
        tokens: laid out in chunks.
        states: (chunks, streams, key_size, value_size), before each chunk.
        out: gradient of the outputs, laid out.
        after: (streams, key_size, value_size), gradient of the state after the piece.
    """
    chunk, key_size = inside(tokens), tokens.key.shape[-1]
    solved_state, solved_value = chunk.solved.split((key_size, out.shape[-1]), dim=-1)
    errors = solved_value - solved_state @ states
    errors_gradient = chunk.scores.transpose(-1, -2) @ out
    direct = chunk.read.transpose(-1, -2) @ out - solved_state.transpose(-1, -2) @ errors_gradient
    ends = torch.empty_like(states)
    for index in range(len(ends) - 1, -1, -1):
        ends[index] = after
        after = torch.baddbmm(direct[index], chunk.transition[index].transpose(-1, -2), after)

    errors_gradient += chunk.written @ ends
    read_gradient, written_gradient = out @ states.transpose(-1, -2), errors @ ends.transpose(-1, -2)
    scores_gradient = out @ errors.transpose(-1, -2)
    solved_gradient = torch.cat((-errors_gradient @ states.transpose(-1, -2), errors_gradient), dim=-1)
    strength = tokens.strength.unsqueeze(-1)
    right_gradient = torch.linalg.solve_triangular(
        (chunk.system * strength).transpose(-1, -2), solved_gradient, upper=True, unitriangular=True
    )
    # Of A, and of the right side before the strengths.
    system_gradient = right_gradient @ chunk.solved.transpose(-1, -2)
    strength_gradient = (right_gradient * torch.cat((chunk.asked, tokens.value), dim=-1)).sum(dim=-1)
    strength_gradient -= (system_gradient * chunk.system).sum(dim=-1)
    system_gradient = system_gradient.mul_(-strength)
    asked_gradient, value_gradient = (right_gradient * strength).split((key_size, out.shape[-1]), dim=-1)
    query_gradient, plus, minus = _through_scores(tokens, chunk, scores_gradient, system_gradient)
    if chunk.decays is None or tokens.log_decay is None:
        key_gradient = plus + minus + asked_gradient + written_gradient
        return Tokens(query_gradient + read_gradient, key_gradient, value_gradient, None, strength_gradient), after
    query_gradient += read_gradient * chunk.decays.from_start
    plus += asked_gradient * chunk.decays.from_start
    minus += written_gradient * chunk.decays.to_end
    whole_gradient = (written_gradient * chunk.written).sum(dim=2) + (ends * states).sum(
        dim=-1
    ) * chunk.decays.whole.squeeze(2)
    sums_gradient = tokens.query * query_gradient + tokens.key * (plus - minus)
    decay_gradient = _of_logs(sums_gradient, whole_gradient, tokens.log_decay)
    return Tokens(query_gradient, plus + minus, value_gradient, decay_gradient, strength_gradient), after


def _through_scores(
    tokens: Tokens, chunk: Inside, scores_gradient: Tensor, system_gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the queries, and of the keys as what asks (i) and as what is asked (j), by way of P and A."""
    query, key, decays = tokens.query, tokens.key, chunk.decays
    if decays is None or decays.between is None:
        scores_gradient, system_gradient = scores_gradient.tril_(), system_gradient.tril_(-1)
        back = key if decays is None or decays.backwards is None else key * decays.backwards
        asked = scores_gradient.transpose(-1, -2) @ chunk.read + system_gradient.transpose(-1, -2) @ chunk.asked
        reading, asking = scores_gradient @ back, system_gradient @ back
        if decays is None or decays.backwards is None:
            return reading, asking, asked
        return reading.mul_(decays.from_start), asking.mul_(decays.from_start), asked.mul_(decays.backwards)
    between = decays.between
    if between.dim() == 4:
        scores_gradient, system_gradient = scores_gradient * between, (system_gradient * between).tril_(-1)
        asked = scores_gradient.transpose(-1, -2) @ query + system_gradient.transpose(-1, -2) @ key
        return scores_gradient @ key, system_gradient @ key, asked
    both = torch.stack((system_gradient.tril(-1), scores_gradient), dim=3)
    decayed = between * key.unsqueeze(2)
    by_token = both @ decayed
    decayed_gradient = both.transpose(-1, -2) @ torch.stack((key, query), dim=3)
    return by_token[..., 1, :], by_token[..., 0, :], (decayed_gradient.mul_(between)).sum(dim=2)


def _of_logs(sums_gradient: Tensor, whole_gradient: Tensor, log_decay: Tensor) -> Tensor:
    """The gradient of log decays from those of their sums, channel by channel, and of the sum of the chunk."""
    if log_decay.dim() == 3:
        sums_gradient, whole_gradient = sums_gradient.sum(dim=-1), whole_gradient.sum(dim=-1)
    sums_gradient = sums_gradient.double()
    sums_gradient[:, :, -1] += whole_gradient
    return sums_gradient.flip(2).cumsum(dim=2).flip(2).to(log_decay.dtype)
