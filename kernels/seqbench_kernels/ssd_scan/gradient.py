"""The backward pass of the chunked scan; the algorithm is told in `seqbench_kernels.ssd_scan.cpu`."""

from typing import NamedTuple

import torch
from torch import Tensor

from seqbench_kernels.ssd_scan.chunk import (
    Buffers,
    by_group,
    decays_of,
    inputs_to_end,
    row_groups,
    scores_of,
    shaped,
    step_inputs,
)
from seqbench_kernels.ssd_scan.flops import chunk_bounds


class _Chunk(NamedTuple):
    """The tokens of a chunk of a group of rows, (rows, q, ...), and the states around it.

    Attributes:
        x, dt, B, C, outputs, outputs_gradient: of these tokens.
        before: (rows, heads, head_dim, state), the state before the chunk, None for zero.
        after: the state after it.
        after_gradient: the gradient of the state after it, None for zero.
    """

    x: Tensor
    dt: Tensor
    B: Tensor
    C: Tensor
    outputs: Tensor
    outputs_gradient: Tensor
    before: Tensor | None
    after: Tensor
    after_gradient: Tensor | None


def scan_backward(
    outputs_gradient: Tensor,
    state_gradient: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    initial_state: Tensor | None,
    outputs: Tensor,
    final_state: Tensor,
    starts: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, dt, A, B, C, D and the initial state (zero where there is none)."""
    x_gradient, dt_gradient, B_gradient, C_gradient = (
        torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (x, dt, B, C)
    )
    A_gradient, D_gradient = torch.zeros_like(A, dtype=torch.float64), torch.zeros_like(D, dtype=torch.float64)
    initial_gradient = torch.zeros_like(final_state)
    bounds = chunk_bounds(x.shape[1])
    for rows in row_groups(x):
        buffers = Buffers(x[rows], B[rows])
        carried = None if state_gradient is None else state_gradient[rows]
        for index in range(len(bounds) - 1, -1, -1):
            at = rows, slice(*bounds[index])
            before = initial_state if index == 0 else starts[index - 1]
            after = final_state if index == len(bounds) - 1 else starts[index]
            x_here, dt_here, B_here, C_here, outputs_here, gradient_here = (
                tensor[at] for tensor in (x, dt, B, C, outputs, outputs_gradient)
            )
            before_here = None if before is None else before[rows]
            chunk = _Chunk(
                x_here, dt_here, B_here, C_here, outputs_here, gradient_here, before_here, after[rows], carried
            )
            # The gradient of dt x is written where that of x belongs.
            carried = _products(chunk, A, buffers, x_gradient[at], B_gradient[at], C_gradient[at])
            dt_gradient[at] = _scalars(chunk, A, D, x_gradient[at], A_gradient, D_gradient)
        if carried is not None:
            initial_gradient[rows] = carried
    x_gradient.mul_(dt.unsqueeze(-1)).addcmul_(outputs_gradient, D.unsqueeze(-1))
    A_gradient, D_gradient = A_gradient.to(A.dtype), D_gradient.to(D.dtype)
    return x_gradient, dt_gradient, A_gradient, B_gradient, C_gradient, D_gradient, initial_gradient


def _products(
    chunk: _Chunk, A: Tensor, buffers: Buffers, inputs_gradient: Tensor, B_gradient: Tensor, C_gradient: Tensor
) -> Tensor | None:
    """Write the gradients of dt x, B and C of a chunk; the gradient of the state before it, None where that is None."""
    (rows, size, heads, head_dim), (groups, state_size) = chunk.x.shape, chunk.B.shape[2:]
    decays = decays_of(chunk.dt, A, groups, buffers)
    B, C, scores = scores_of(chunk.B, chunk.C, buffers)
    weights = torch.mul(decays.between, scores, out=shaped(buffers.weights, *decays.between.shape))
    by_output = chunk.outputs_gradient.transpose(1, 2).reshape(-1, size, head_dim)
    values_gradient = torch.bmm(
        weights.view(-1, size, size).transpose(1, 2), by_output, out=shaped(buffers.products, *by_output.shape)
    )
    inputs_gradient.copy_(values_gradient.view(rows, heads, size, head_dim).transpose(1, 2))
    inputs = step_inputs(chunk.x, chunk.dt, buffers).view(-1, size, head_dim)
    # The weights are spent: their buffer takes their gradient, and with the decay that of the scores.
    torch.bmm(by_output, inputs.transpose(1, 2), out=weights.view(-1, size, size))
    by_score = weights.mul_(decays.between).sum(dim=2).view(-1, size, size)
    by_B, by_C = torch.bmm(by_score.transpose(1, 2), C), torch.bmm(by_score, B)
    before_gradient = None
    if chunk.before is not None:
        decayed = by_group(chunk.outputs_gradient, groups) * decays.from_start
        decayed = decayed.reshape(rows * groups, size, -1)
        by_C = torch.baddbmm(by_C, decayed, chunk.before.reshape(rows * groups, -1, state_size), out=by_C)
        before_gradient = torch.bmm(decayed.transpose(1, 2), C).view(chunk.after.shape)
    if chunk.after_gradient is not None:
        by_state = chunk.after_gradient.reshape(rows * groups, -1, state_size)
        through_state = torch.bmm(B, by_state.transpose(1, 2)).view(rows, groups, size, -1, head_dim)
        by_group(inputs_gradient, groups).addcmul_(through_state, decays.to_end)
        by_B = torch.baddbmm(by_B, inputs_to_end(chunk.x, chunk.dt, decays, buffers), by_state, out=by_B)
        if before_gradient is not None:
            before_gradient.addcmul_(chunk.after_gradient, decays.whole)
    B_gradient.copy_(by_B.view(rows, groups, size, -1).transpose(1, 2))
    C_gradient.copy_(by_C.view(rows, groups, size, -1).transpose(1, 2))
    return before_gradient


def _scalars(
    chunk: _Chunk, A: Tensor, D: Tensor, inputs_gradient: Tensor, A_gradient: Tensor, D_gradient: Tensor
) -> Tensor:
    """The gradient of dt of a chunk, (rows, q, heads); what it gives to those of A and D is added to them."""
    by_input = (chunk.x * inputs_gradient).sum(dim=-1)
    direct = (chunk.outputs_gradient * chunk.x).sum(dim=-1)
    read = (chunk.outputs_gradient * chunk.outputs).sum(dim=-1) - D * direct
    kept = (read - chunk.dt * by_input).double()
    log_gradient = kept.flip(1).cumsum(dim=1).flip(1)
    if chunk.after_gradient is not None:
        log_gradient += (chunk.after_gradient * chunk.after).sum(dim=(2, 3)).unsqueeze(1)
    A_gradient += (log_gradient * chunk.dt).sum(dim=(0, 1))
    D_gradient += direct.double().sum(dim=(0, 1))
    return (log_gradient * A).to(by_input.dtype).add_(by_input)
