"""RWKV-7's recurrence by its definition, and by products over chunks of tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Tokens of a chunk at most. Decays are above exp(-0.607), so that what a chunk's key is divided by is above exp(-20).
CHUNK = 32


def recurrence_reference(
    r: Tensor, log_decay: Tensor, k: Tensor, v: Tensor, removed: Tensor, written: Tensor, before: Tensor
) -> tuple[Tensor, Tensor]:
    """S_t = diag(d) S_(t-1) - written (removed^T S_(t-1)) + k v^T, o_t = S_t^T r, one token at a time.

    The removal reads the state before it decays. Arguments as in `recurrence`.
    """
    state, outputs = before, []
    for step in range(r.shape[1]):
        found = (removed[:, step].unsqueeze(-2) @ state).squeeze(-2)
        state = log_decay[:, step].exp().unsqueeze(-1) * state
        state = state - written[:, step].unsqueeze(-1) * found.unsqueeze(-2)
        state = state + k[:, step].unsqueeze(-1) * v[:, step].unsqueeze(-2)
        outputs.append((r[:, step].unsqueeze(-2) @ state).squeeze(-2))
    return torch.stack(outputs, dim=1), state


def recurrence(
    r: Tensor, log_decay: Tensor, k: Tensor, v: Tensor, removed: Tensor, written: Tensor, before: Tensor
) -> tuple[Tensor, Tensor]:
    """As `recurrence_reference`, all tokens of a chunk at once; differentiable.

    What is removed at the tokens of a chunk, u, solves a triangular system; with it the state after a chunk is a matrix
    times the one before, plus another, and only that goes from chunk to chunk.

    Args:
        r: (batch, length, heads, size), what the state is read by.
        log_decay: the same shape, from -0.607 to 0.
        k: keys; 0 with the log decay and `written` leaves the state as it is.
        v: values.
        removed: unit vectors along which the state is read and removed.
        written: the vectors at which that is subtracted.
        before: (batch, heads, size, size), keys first.

    Returns:
        (batch, length, heads, size), and the state after the last token.
    """
    batch, length, heads, size = r.shape
    count, tokens = chunks_of(length)
    inputs = [_folded(tensor, count, tokens) for tensor in (r, log_decay, k, v, removed, written)]
    r, log_decay, k, v, removed, written = inputs
    logs = log_decay.cumsum(dim=2)
    whole = logs[:, :, -1:]
    before_decay = removed * (logs - log_decay).exp()
    back_k, back_written, read = k * (-logs).exp(), written * (-logs).exp(), r * logs.exp()
    system = (before_decay @ back_written.mT).tril(-1)
    from_values = (before_decay @ back_k.mT).tril(-1) @ v
    # The diagonal is taken for ones.
    solved = torch.linalg.solve_triangular(
        system, torch.cat((before_decay, from_values), dim=-1), upper=False, unitriangular=True
    )
    by_state, by_values = solved.split(size, dim=-1)
    end_k, end_written = (k * (whole - logs).exp()).mT, (written * (whole - logs).exp()).mT
    step = torch.diag_embed(whole.squeeze(2).exp()) - end_written @ by_state
    added = end_k @ v - end_written @ by_values
    states = [before.flatten(0, 1)]
    for index in range(count):
        states.append(step[:, index] @ states[-1] + added[:, index])
    starts = torch.stack(states[:-1], dim=1)
    removals = by_state @ starts + by_values
    outputs = read @ starts + (read @ back_k.mT).tril() @ v - (read @ back_written.mT).tril() @ removals
    outputs = outputs.reshape(batch, heads, count * tokens, size)[:, :, :length].transpose(1, 2)
    return outputs, states[-1].view(before.shape)


def recurrence_flops(length: int, heads: int, size: int) -> int:
    """Forward FLOPs of the products of one row; the triangular system is none."""
    count, tokens = chunks_of(length)
    between_tokens = tokens * tokens * size * (4 + 3)
    with_states = tokens * size * size * (3 + 2) + size**3
    return 2 * count * heads * (between_tokens + with_states)


def chunks_of(length: int) -> tuple[int, int]:
    """How many chunks, and tokens of each: as equal as can be, so that little is padded at the end."""
    count = -(-length // CHUNK)
    return count, -(-length // count)


def _folded(tensor: Tensor, count: int, tokens: int) -> Tensor:
    """(batch x heads, chunks, tokens, size); zeros, which change nothing, fill the last chunk."""
    tensor = F.pad(tensor.transpose(1, 2), (0, 0, 0, count * tokens - tensor.shape[1]))
    return tensor.reshape(-1, count, tokens, tensor.shape[-1])
