"""The delta rule by matrix products over chunks of tokens; fast on CPU, runs anywhere.

The algorithm is that of Yang et al., arXiv 2406.06484, section 3, with decays as in arXiv 2412.06464: inside a chunk a
triangular system gives what each token writes, and a state goes from chunk to chunk. Here what a chunk does to any
state is computed first, as M S + N, for all chunks at once; one small product a chunk is then all that is sequential.
"""

import torch
from torch import Tensor

from seqbench_kernels.delta_rule.chunks import Tokens, pieces_of, put, tokens_taken
from seqbench_kernels.delta_rule.flops import chunks_of
from seqbench_kernels.delta_rule.inside import Inside, inside


def rule_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    strength: Tensor,
    initial_state: Tensor | None,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs and final state of `delta_rule`, and what `rule_backward` needs when `keep`, else nothing.

    Returns:
        Outputs (batch, length, heads, value_size), the final state (batch, heads, key_size, value_size), and the states
        before each chunk (chunks, batch, heads, key_size, value_size), with no chunk unless `keep`.
    """
    batch, length, heads, key_size = key.shape
    value_size = value.shape[-1]
    starts = key.new_empty(starts_shape(key, value, log_decay, keep))
    if length == 1 and not keep:
        return *_one_step(query, key, value, log_decay, strength, initial_state), starts
    outputs = torch.empty_like(value, memory_format=torch.contiguous_format)
    final = key.new_empty(batch, heads, key_size, value_size)
    tokens = Tokens(query, key, value, log_decay, strength)
    for pieces in pieces_of(key, log_decay):
        rows = pieces[0].rows
        state = key.new_zeros(final[rows].shape) if initial_state is None else initial_state[rows]
        state = state.reshape(-1, key_size, value_size)
        for piece in pieces:
            chunk = inside(tokens_taken(piece, tokens))
            states = _states(chunk, state)
            put(piece, _outputs(chunk, states[:-1]), outputs)
            if keep:
                starts[piece.chunks, rows] = states[:-1].unflatten(1, (-1, heads))
            state = states[-1]
        final[rows] = state.unflatten(0, (-1, heads))
    return outputs, final, starts


def starts_shape(key: Tensor, value: Tensor, log_decay: Tensor | None, keep: bool) -> tuple[int, int, int, int, int]:
    """Shape of the states before each chunk as `rule_forward` returns them."""
    batch, length, heads, key_size = key.shape
    by_channel = log_decay is not None and log_decay.dim() == 4
    return chunks_of(length, by_channel)[0] if keep else 0, batch, heads, key_size, value.shape[-1]


def _states(chunk: Inside, state: Tensor) -> Tensor:
    """(chunks + 1, streams, key_size, value_size), the states before each chunk and after the last."""
    count = chunk.added.shape[0]
    states = state.new_empty(count + 1, *state.shape)
    states[0] = state
    for index in range(count):
        torch.baddbmm(chunk.added[index], chunk.transition[index], states[index], out=states[index + 1])
    return states


def _outputs(chunk: Inside, states: Tensor) -> Tensor:
    """(chunks, streams, size, value_size) from the states before each chunk."""
    key_size = chunk.read.shape[-1]
    errors = chunk.solved[..., key_size:] - chunk.solved[..., :key_size] @ states
    return chunk.read @ states + chunk.scores @ errors


def _one_step(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    strength: Tensor,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """One token, without chunks."""
    key, query = key.transpose(1, 2), query.transpose(1, 2)
    value, strength = value.transpose(1, 2), strength.transpose(1, 2).unsqueeze(-1)
    if initial_state is None:
        state = key.transpose(-1, -2) @ (value * strength)
    else:
        state = initial_state
        if log_decay is not None:
            decay = log_decay.transpose(1, 2) if log_decay.dim() == 4 else log_decay.transpose(1, 2).unsqueeze(-1)
            state = state * decay.exp().transpose(-1, -2)
        error = (value - key @ state) * strength
        state = state + key.transpose(-1, -2) @ error
    return (query @ state).transpose(1, 2), state
