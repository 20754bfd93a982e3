"""Selective scan in plain torch, fast on CPU: a loop over preallocated buffers, and its gradients by hand.

Four choices make it fast. Buffers are laid out (steps, rows, state, channels), so that a step reads and writes one
contiguous block and every broadcast runs along the channels. Time is cut into chunks, and the batch into groups of
rows, whose buffers stay in the processor's cache and are reused by all of them, so that no large tensor is ever
allocated. Only the state at the start of each chunk is kept for the backward pass, which repeats the chunk's few
operations (Gu and Dao, arXiv 2312.00752, section 3.3.2, keep nothing at all), so that at most an eighth of the states
is ever stored. And the decay is a power of two, exp(x) = 2^(x log2 e): torch computes exp2 on CPU about three times as
fast as exp (measured in fp32: 0.3 against 0.8 to 1.2 ns an element), to the same precision.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

# Elements of one buffer of a chunk (1 MiB in fp32), and of one step in it: on CPU a batch with larger steps is scanned
# in groups of rows. Measured, forward and backward, at 64 x 40 tokens of 128 channels, 4 x 512 of 256 and 1 x 512 of
# 1536, all of state 16: with twice or half these sizes it takes 1 to 9 % longer. Fewer than 8 steps gain little and
# keep more states.
_BUFFER_ELEMENTS = 2**18
_STEP_ELEMENTS = 2**15
_FEWEST_STEPS, _MOST_STEPS = 8, 64


def scan_forward(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial_state: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs and final state of `selective_scan`, and what `scan_backward` needs when `keep`, else nothing.

    Returns:
        y (batch, length, channels), the final state (batch, channels, state), and the states at the start of each chunk
        (chunks, batch, state, channels), with no chunk unless `keep`.
    """
    starts = u.new_empty(starts_shape(u, A, keep))
    if u.shape[1] == 1 and not keep:
        return *_one_step(u, dt, A, B, C, D, initial_state), starts
    chunks = _Chunks(u, dt, A, B, C)
    outputs = torch.empty_like(u, memory_format=torch.contiguous_format)
    final_state = u.new_empty(u.shape[0], u.shape[2], A.shape[1])
    for rows in chunks.row_groups():
        if initial_state is None:
            chunks.states[0].zero_()
        else:
            chunks.states[0] = initial_state[rows].transpose(1, 2)
        by_step = outputs[rows].transpose(0, 1)
        for index, (start, stop) in enumerate(chunks.bounds):
            if keep:
                starts[index, rows] = chunks.states[0]
            decay, states = chunks.run(start, stop)
            # The decay is spent: its buffer takes the products.
            torch.mul(states, chunks.C[start:stop].unsqueeze(3), out=decay)
            torch.sum(decay, dim=2, out=by_step[start:stop])
            chunks.states[0] = states[-1]
        final_state[rows] = chunks.states[0].transpose(1, 2)
    return outputs.addcmul_(u, D), final_state, starts


def scan_backward(
    outputs_gradient: Tensor,
    state_gradient: Tensor | None,
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    starts: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, dt, A, B, C, D and the initial state from those of the outputs and of the final state."""
    chunks = _Chunks(u, dt, A, B, C)
    adjoint_buffer, work_buffer = torch.empty_like(chunks.decay_buffer), torch.empty_like(chunks.decay_buffer)
    input_gradient, dt_gradient, B_gradient, C_gradient = (
        torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (u, dt, B, C)
    )
    A_gradient, A_scaled = torch.zeros_like(chunks.A), A.t().contiguous()
    initial_gradient = u.new_empty(u.shape[0], u.shape[2], A.shape[1])
    for rows in chunks.row_groups():
        count = chunks.rows
        adjoint, work = adjoint_buffer[:, :count], work_buffer[:, :count]
        adjoint_at = adjoint.unbind(0)
        by_output = outputs_gradient[rows].transpose(0, 1)
        input_by_step, dt_by_step = input_gradient[rows].transpose(0, 1), dt_gradient[rows].transpose(0, 1)
        B_by_step, C_by_step = B_gradient[rows].transpose(0, 1), C_gradient[rows].transpose(0, 1)
        # Gradient of the state before the steps handled so far: decay_t times the gradient of state t.
        carried = None if state_gradient is None else state_gradient[rows].transpose(1, 2)
        for index in range(len(chunks.bounds) - 1, -1, -1):
            start, stop = chunks.bounds[index]
            size, at = stop - start, slice(start, stop)
            chunks.states[0] = starts[index, rows]
            decay, states = chunks.run(start, stop)
            adjoints, products = adjoint[:size], work[:size]
            torch.mul(chunks.C[at].unsqueeze(3), by_output[at].unsqueeze(2), out=adjoints)
            if carried is not None:
                adjoint_at[size - 1].add_(carried)
            for step in range(size - 2, -1, -1):
                adjoint_at[step].addcmul_(adjoint_at[step + 1], chunks.decay_at[step + 1])
            torch.mul(states, by_output[at].unsqueeze(2), out=products)
            torch.sum(products, dim=3, out=C_by_step[at])
            torch.mul(adjoints, chunks.input[at].unsqueeze(2), out=products)
            torch.sum(products, dim=3, out=B_by_step[at])
            torch.mul(adjoints, chunks.B[at].unsqueeze(3), out=products)
            torch.sum(products, dim=2, out=input_by_step[at])
            adjoints.mul_(decay)
            carried = adjoints[0].clone()
            # Gradient of the exponent dt A: state before the step x decay x gradient of the state after it.
            adjoints.mul_(chunks.states[:size])
            torch.mul(adjoints, A_scaled, out=products)
            torch.sum(products, dim=2, out=dt_by_step[at])
            A_gradient.add_(adjoints.mul_(chunks.dt[at].unsqueeze(2)).sum(dim=(0, 1)))
        assert carried is not None
        initial_gradient[rows] = carried.transpose(1, 2)
    dt_gradient.addcmul_(input_gradient, u)
    D_gradient = (outputs_gradient * u).sum(dim=(0, 1))
    u_gradient = input_gradient.mul_(dt).addcmul_(outputs_gradient, D)
    return u_gradient, dt_gradient, A_gradient.t().contiguous(), B_gradient, C_gradient, D_gradient, initial_gradient


def starts_shape(u: Tensor, A: Tensor, keep: bool) -> tuple[int, int, int, int]:
    """Shape of the states at the start of each chunk as `scan_forward` returns them."""
    _, steps = _plan(u, A)
    return -(-u.shape[1] // steps) if keep else 0, u.shape[0], A.shape[1], A.shape[0]


def _plan(u: Tensor, A: Tensor) -> tuple[int, int]:
    """Rows of a group and steps of a chunk."""
    batch, length, _ = u.shape
    per_row = max(1, A.shape[0] * A.shape[1])
    rows = min(batch, max(1, _STEP_ELEMENTS // per_row)) if u.device.type == "cpu" else batch
    steps = max(_FEWEST_STEPS, _BUFFER_ELEMENTS // max(1, rows * per_row))
    return max(1, rows), min(steps, _MOST_STEPS, length)


def _one_step(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One token without a gradient: nothing of the state's size is allocated but the new state."""
    added = (dt * u).transpose(1, 2)
    if initial_state is None:
        state = added * B
    else:
        state = torch.mul(dt.transpose(1, 2), A * math.log2(math.e)).exp2_().mul_(initial_state).addcmul_(added, B)
    outputs = torch.bmm(state, C.transpose(1, 2)).transpose(1, 2)
    return outputs.addcmul(u, D), state


class _Chunks:
    """The inputs of a group of rows seen step by step, and the buffers in which a chunk of steps is computed."""

    def __init__(self, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> None:
        (batch, length, channels), state = u.shape, A.shape[1]
        self.inputs = u, dt, B, C
        self.most_rows, steps = _plan(u, A)
        self.groups = [slice(first, min(first + self.most_rows, batch)) for first in range(0, batch, self.most_rows)]
        self.bounds = [(start, min(start + steps, length)) for start in range(0, length, steps)]
        # A transposed, for powers of two.
        self.A = A.t().contiguous() * math.log2(math.e)
        self.decay_buffer = u.new_empty(steps, self.most_rows, state, channels)
        # One place more than there are steps: the first holds the state before the chunk.
        self.states_buffer = u.new_empty(steps + 1, self.most_rows, state, channels)

    def row_groups(self) -> Iterator[slice]:
        """Each group of rows, with the inputs and the buffers of that group in place."""
        u, dt, B, C = self.inputs
        for group in self.groups:
            self.rows = group.stop - group.start
            self.dt = dt[group].transpose(0, 1)
            self.input = (dt[group] * u[group]).transpose(0, 1)
            self.B, self.C = B[group].transpose(0, 1), C[group].transpose(0, 1)
            self.decay, self.states = self.decay_buffer[:, : self.rows], self.states_buffer[:, : self.rows]
            # Taking views once spares two indexing calls per token.
            self.decay_at, self.state_at = self.decay.unbind(0), self.states.unbind(0)
            yield group

    def run(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Advance `states` from its first place through the steps; (decay, states after each step)."""
        size = stop - start
        decay, states = self.decay[:size], self.states[1 : size + 1]
        torch.mul(self.dt[start:stop].unsqueeze(2), self.A, out=decay).exp2_()
        torch.mul(self.B[start:stop].unsqueeze(3), self.input[start:stop].unsqueeze(2), out=states)
        for step in range(size):
            self.state_at[step + 1].addcmul_(self.state_at[step], self.decay_at[step])
        return decay, states
