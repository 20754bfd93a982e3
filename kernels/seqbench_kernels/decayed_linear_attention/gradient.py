"""The backward pass over chunks; the algorithm is told in `seqbench_kernels.decayed_linear_attention.cpu`.

The gradient of the log decays needs no product of its own. G_t, the sum of log decays up to token t, stands beside q_t
as exp(G_t) and beside k_t as exp(-G_t), so its gradient is <q_t, gradient of q_t> - <k_t, gradient of k_t>, and
<S, gradient of S> for the state S after the chunk; a log decay takes part in every sum from its token on.
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


def attention_backward(
    outputs_gradient: Tensor,
    state_gradient: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    final_state: Tensor,
    starts: Tensor,
    has_initial_state: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, the log decays (empty where there are none) and the initial state."""
    folded = [fold(tensor) for tensor in (outputs_gradient, q, k, v)]
    logs = None if log_decay is None else fold(log_decay)
    gradients = [torch.empty_like(tensor) for tensor in folded[1:]]
    by_log = q.real.new_empty(0) if logs is None else torch.empty_like(logs)
    by_initial = torch.empty_like(starts[:, 0])
    ends = final_state.view(*by_initial.shape)
    after = None if state_gradient is None else state_gradient.reshape(by_initial.shape)
    for rows in row_groups(folded[0]):
        decays = decays_of(None if logs is None else logs[rows])
        by_output, queries, keys, values = (tensor[rows] for tensor in folded)
        chunks = _Chunks(by_output, queries, keys, values, starts[rows], ends[rows], decays)
        *parts, initial = chunks.gradients(has_initial_state, None if after is None else after[rows])
        for gradient, part in zip((*gradients, by_log), parts, strict=True):
            if part is not None:
                gradient[rows] = part
        by_initial[rows] = initial
    by_q, by_k, by_v = (unfold(gradient, q) for gradient in gradients)
    by_log = by_log if log_decay is None else unfold(by_log, q)
    return by_q, by_k, by_v, by_log, by_initial.view(final_state.shape)


class _Chunks:
    """Chunks of some rows, (rows, chunks, size, ...), the states before each, and the state after the last."""

    def __init__(
        self, by_output: Tensor, q: Tensor, k: Tensor, v: Tensor, starts: Tensor, end: Tensor, decays: Decays | None
    ) -> None:
        self.by_output, self.q, self.k, self.v, self.decays = by_output, q, k, v, decays
        self.states = torch.cat((starts, end.unsqueeze(1)), dim=1)
        self.from_start = None if decays is None else decays.from_start
        self.to_end = None if decays is None else decays.to_end

    def gradients(
        self, has_initial_state: bool, by_end: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
        """Of q, k, v, the log decays and the state before the first chunk."""
        q, k, v, count = self.q, self.k, self.v, self.q.shape[1]
        logs = None if self.decays is None else self.decays.logs.flatten(0, 1)
        scores = Scores(q.flatten(0, 1), k.flatten(0, 1), logs)
        by_output = self.by_output.flatten(0, 1)
        by_score = (by_output @ adjoint(v.flatten(0, 1))).tril_()
        by_q, by_k = (gradient.view(q.shape) for gradient in scores.gradients(by_score))
        by_v = (adjoint(scores.values) @ by_output).view(v.shape)
        by_states = torch.zeros_like(self.states)
        if has_initial_state or count > 1:
            by_q += scaled(self.by_output @ adjoint(self.states[:, :-1]), self.from_start)
            self._carry_back(by_states, by_end)
        elif by_end is not None:
            by_states[:, 1] = by_end
        if by_end is not None or count > 1:
            after = by_states[:, 1:]
            by_k += scaled(v @ adjoint(after), self.to_end)
            by_v += scaled(k, self.to_end) @ after
        return by_q, by_k, by_v, self._by_log_decay(by_q, by_k, by_states), by_states[:, 0]

    def _carry_back(self, by_states: Tensor, by_end: Tensor | None) -> None:
        """Write the gradients of the states, from the last to the first."""
        read = adjoint(scaled(self.q, self.from_start)) @ self.by_output
        if by_end is not None:
            by_states[:, -1] = by_end
        for index in range(read.shape[1] - 1, -1, -1):
            kept = scaled(by_states[:, index + 1], None if self.decays is None else self.decays.whole[:, index])
            torch.add(kept, read[:, index], out=by_states[:, index])

    def _by_log_decay(self, by_q: Tensor, by_k: Tensor, by_states: Tensor) -> Tensor | None:
        if self.decays is None:
            return None
        each = (_product(self.q, by_q) - _product(self.k, by_k)).double()
        at_end = _product(self.states[:, 1:], by_states[:, 1:]).sum(dim=-1).unsqueeze(2)
        if self.decays.logs.shape[-1] == 1:
            each, at_end = each.sum(dim=-1, keepdim=True), at_end.sum(dim=-1, keepdim=True)
        return (each.flip(2).cumsum(dim=2).flip(2) + at_end).to(by_q.real.dtype)


def _product(values: Tensor, gradient: Tensor) -> Tensor:
    """What a real factor of each value has for gradient."""
    if values.is_complex():
        return (torch.view_as_real(values) * torch.view_as_real(gradient)).sum(dim=-1)
    return values * gradient
