"""Mamba-2's scan by matrix products over chunks of tokens, and its gradients by hand; fast on CPU, runs anywhere.

The algorithm is that of Dao and Gu, arXiv 2405.21060, section 6: inside a chunk the outputs are those of causal linear
attention, with the decay between two tokens as a mask (quadratic in the chunk), and one state per head carries what
came before into the next chunk. The backward pass keeps the state before each chunk and computes the rest again, so
that memory is bounded by the inputs and one state in 64 tokens.

Precision. The decay from token j to token i is exp(S_i - S_j), S the running sum of log decays inside the chunk. The
sums and their differences are taken in fp64, since S may be large where the difference is small, and rounded before
the exponential; differences of the wrong sign are masked before it. Exponentials are powers of two, which torch
computes several times faster on CPU than exp (measured: 0.3 against 2.6 ns an element where many are zero).

The gradient of the log decay a_t needs no product of its own. It is <g_t, exp(a_t) h_(t-1)>, g_t the whole gradient of
the state h_t, and <g_t, h_t> = gy_t . (C_t h_t) + (gradient of a_(t+1)); so it is a sum, from t to the end of the
chunk, of gy_i . (y_i - D x_i) - (dt_i x_i) . (gradient of dt_i x_i), plus <g, h> at the chunk's end.
"""

import torch
from torch import Tensor

from seqbench_kernels.ssd_scan.chunk import (
    LOG2_E,
    Buffers,
    by_group,
    decays_of,
    inputs_to_end,
    row_groups,
    scores_of,
    shaped,
    step_inputs,
)
from seqbench_kernels.ssd_scan.flops import CHUNK, chunk_bounds


def scan_forward(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial_state: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs and final state of `ssd_scan`, and what `scan_backward` needs when `keep`, else nothing.

    Returns:
        y (batch, length, heads, head_dim), the final state (batch, heads, head_dim, state), and the states before each
        chunk but the first (chunks - 1, batch, heads, head_dim, state), with no chunk unless `keep`.
    """
    starts = x.new_empty(starts_shape(x, B, keep))
    if x.shape[1] == 1:
        return *_one_step(x, dt, A, B, C, D, initial_state), starts
    outputs = torch.empty_like(x, memory_format=torch.contiguous_format)
    final_state = x.new_empty(x.shape[0], *x.shape[2:], B.shape[3])
    for rows in row_groups(x):
        buffers = Buffers(x[rows], B[rows])
        state = None if initial_state is None else initial_state[rows]
        for index, (start, stop) in enumerate(chunk_bounds(x.shape[1])):
            piece = rows, slice(start, stop)
            if keep and index > 0:
                assert state is not None
                starts[index - 1, rows] = state
            state = _chunk_forward(x[piece], dt[piece], A, B[piece], C[piece], D, state, buffers, outputs[piece])
        assert state is not None
        final_state[rows] = state
    return outputs, final_state, starts


def starts_shape(x: Tensor, B: Tensor, keep: bool) -> tuple[int, int, int, int, int]:
    """Shape of the states before each chunk but the first as `scan_forward` returns them."""
    batch, length, heads, head_dim = x.shape
    return -(-length // CHUNK) - 1 if keep else 0, batch, heads, head_dim, B.shape[3]


def _one_step(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One token: nothing of the state's size is allocated but the new state."""
    batch, _, heads, head_dim = x.shape
    groups, size = B.shape[2:]
    added = (dt.unsqueeze(-1) * x).reshape(batch, groups, -1, 1)
    B, C = B.transpose(1, 2), C.reshape(batch * groups, size, 1)
    if initial_state is None:
        state = added * B
    else:
        decay = (dt.transpose(1, 2) * (A * LOG2_E).unsqueeze(1)).exp2_().unsqueeze(-1)
        state = torch.mul(initial_state, decay).view(batch, groups, -1, size).addcmul_(added, B)
    outputs = torch.bmm(state.view(batch * groups, -1, size), C).view(x.shape)
    return outputs.addcmul_(x, D.unsqueeze(-1)), state.view(batch, heads, head_dim, size)


def _chunk_forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    state: Tensor | None,
    buffers: Buffers,
    outputs: Tensor,
) -> Tensor:
    """Write the outputs of a chunk and return the state after it; the state before it, None for zero, is unchanged."""
    (rows, size, heads, head_dim), (groups, state_size) = x.shape, B.shape[2:]
    decays = decays_of(dt, A, groups, buffers)
    B, C, scores = scores_of(B, C, buffers)
    weights = torch.mul(decays.between, scores, out=shaped(buffers.weights, *decays.between.shape))
    inside = torch.bmm(
        weights.view(-1, size, size),
        step_inputs(x, dt, buffers).view(-1, size, head_dim),
        out=shaped(buffers.products, rows * heads, size, head_dim),
    )
    torch.addcmul(inside.view(rows, heads, size, head_dim).transpose(1, 2), x, D.unsqueeze(-1), out=outputs)
    if state is not None:
        before = state.reshape(rows * groups, -1, state_size)
        read = torch.bmm(
            C, before.transpose(1, 2), out=shaped(buffers.by_head, rows * groups, size, heads // groups * head_dim)
        )
        by_group(outputs, groups).addcmul_(read.view(rows, groups, size, -1, head_dim), decays.from_start)
    added = torch.bmm(inputs_to_end(x, dt, decays, buffers).transpose(1, 2), B).view(rows, heads, head_dim, state_size)
    return added if state is None else added.addcmul_(state, decays.whole)
