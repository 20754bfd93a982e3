"""Decayed linear attention by matrix products over chunks of tokens; written for CPU, runs anywhere.

Inside a chunk the outputs are those of causal attention without a softmax, with the decay between two tokens in its
scores; one state a chunk carries what came before (Yang et al., arXiv 2312.06635, section 4, with the split of strong
decays that `Scores` tells of). All chunks are multiplied at once; only the states go from chunk to chunk. What is kept
for the backward pass is the state before each chunk, so that memory grows with the length and no faster.

Precision. Running sums of log decays are taken in fp64, since one may be large where differences are small, and their
differences are rounded before the exponential.
"""

import torch
from torch import Tensor

from seqbench_kernels.decayed_linear_attention.chunk import (
    Decays,
    Scores,
    adjoint,
    decays_of,
    fold,
    row_groups,
    scaled,
    unfold,
)
from seqbench_kernels.decayed_linear_attention.flops import chunks_of


def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, initial_state: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs and final state of `decayed_linear_attention`, and when `keep` what the backward pass needs.

    `log_decay` is (batch, length, heads, 1 or key_size).

    Returns:
        o (batch, length, heads, value_size), the final state (batch, heads, key_size, value_size), and the state before
        each chunk (batch x heads, chunks, key_size, value_size), with no chunk unless `keep`.
    """
    batch, length, heads, key_size = q.shape
    starts = q.new_empty(starts_shape(q, v, keep))
    if length == 1:
        output, final_state = _one_step(q, k, v, log_decay, initial_state)
        if keep:
            starts.copy_(torch.zeros_like(starts) if initial_state is None else initial_state.reshape(starts.shape))
        return output, final_state, starts
    queries, keys, values = (fold(tensor) for tensor in (q, k, v))
    logs = None if log_decay is None else fold(log_decay)
    before = None if initial_state is None else initial_state.flatten(0, 1)
    outputs = torch.empty_like(values)
    final_state = v.new_empty(batch * heads, key_size, v.shape[3])
    for rows in row_groups(values):
        outputs[rows], states = _rows_forward(
            queries[rows],
            keys[rows],
            values[rows],
            decays_of(None if logs is None else logs[rows]),
            None if before is None else before[rows],
        )
        final_state[rows] = states[:, -1]
        if keep:
            starts[rows] = states[:, :-1]
    return unfold(outputs, v), final_state.view(batch, heads, key_size, -1), starts


def starts_shape(q: Tensor, v: Tensor, keep: bool) -> tuple[int, int, int, int]:
    """Shape of the states before each chunk as `attention_forward` returns them."""
    batch, length, heads, key_size = q.shape
    return batch * heads, chunks_of(length)[0] if keep else 0, key_size, v.shape[3]


def _one_step(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, initial_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    state = adjoint(k.squeeze(1).unsqueeze(-2)) * v.squeeze(1).unsqueeze(-2)
    if initial_state is not None:
        decay = None if log_decay is None else log_decay.squeeze(1).unsqueeze(-1).exp()
        state += scaled(initial_state, decay)
    return (q.squeeze(1).unsqueeze(-2) @ state).view(v.shape), state


def _rows_forward(
    q: Tensor, k: Tensor, v: Tensor, decays: Decays | None, before: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Outputs of some rows, (rows, chunks, size, ...), and the states before and after all chunks, first to last."""
    logs = None if decays is None else decays.logs.flatten(0, 1)
    scores = Scores(q.flatten(0, 1), k.flatten(0, 1), logs)
    outputs = (scores.values @ v.flatten(0, 1)).view(v.shape)
    added = adjoint(scaled(k, None if decays is None else decays.to_end)) @ v
    states = _states(added, decays, before)
    if before is not None or q.shape[1] > 1:
        outputs += scaled(q, None if decays is None else decays.from_start) @ states[:, :-1]
    return outputs, states


def _states(added: Tensor, decays: Decays | None, before: Tensor | None) -> Tensor:
    """(rows, chunks + 1, key_size, value_size), from what each chunk adds and the first one's state, None for zero."""
    rows, count = added.shape[:2]
    states = added.new_zeros(rows, count + 1, *added.shape[2:])
    if before is not None:
        states[:, 0] = before
    for index in range(count):
        kept = scaled(states[:, index], None if decays is None else decays.whole[:, index])
        torch.add(kept, added[:, index], out=states[:, index + 1])
    return states
