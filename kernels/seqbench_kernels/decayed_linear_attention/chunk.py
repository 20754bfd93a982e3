"""What the passes over chunks of tokens share: how they are laid out, their decays and their scores."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seqbench_kernels.decayed_linear_attention.flops import chunks_of

# Largest exponent of a key's factor, exp(50) = 5e21: far from what fp32 can hold, whatever it multiplies.
LARGEST_EXPONENT = 50.0

# Elements of the scores, (rows x chunks, size, size), that are computed at once: 4 MiB in fp32.
_SCORE_ELEMENTS = 2**20


def fold(tensor: Tensor) -> Tensor:
    """(batch, length, heads, channels) as (batch x heads, chunks, size, channels); zeros fill the last chunk."""
    batch, length, heads, channels = tensor.shape
    count, size = chunks_of(length)
    folded = F.pad(tensor.transpose(1, 2), (0, 0, 0, count * size - length))
    return folded.reshape(batch * heads, count, size, channels)


def unfold(folded: Tensor, like: Tensor) -> Tensor:
    """Undo `fold`, for a tensor of the shape of `like` but for its channels."""
    batch, length, heads = like.shape[:3]
    tokens = folded.view(batch, heads, -1, folded.shape[-1])[:, :, :length]
    return tokens.transpose(1, 2).contiguous()


def row_groups(folded: Tensor) -> list[slice]:
    """Groups of rows that are computed one after the other, so that memory does not grow with the batch."""
    rows, count, size, _ = folded.shape
    group = max(1, _SCORE_ELEMENTS // (count * size * size))
    return [slice(first, min(first + group, rows)) for first in range(0, rows, group)]


def scaled(tensor: Tensor, factors: Tensor | None) -> Tensor:
    """The tensor, real or complex, times real factors; None for ones."""
    if factors is None:
        return tensor
    if tensor.is_complex():
        return torch.view_as_complex(torch.view_as_real(tensor) * factors.unsqueeze(-1))
    return tensor * factors


def adjoint(tensor: Tensor) -> Tensor:
    """Transposed and conjugated at once: a conjugate that torch puts off is lost in operators of compiled models."""
    return tensor.mT.conj_physical() if tensor.is_complex() else tensor.mT


class Decays(NamedTuple):
    """Decays of chunks of `size` tokens; the last axis is one for all channels, or one a channel.

    Attributes:
        logs: (rows, chunks, size, 1 or key_size) fp64, running sums of the log decays from each chunk's first token on.
        from_start: the same shape, from before the chunk to after each token.
        to_end: from after each token to the end of the chunk.
        whole: (rows, chunks, 1 or key_size, 1), over the whole chunk.
    """

    logs: Tensor
    from_start: Tensor
    to_end: Tensor
    whole: Tensor


def decays_of(log_decay: Tensor | None) -> Decays | None:
    """The decays of chunks from the logarithm of each token's, folded; None where nothing decays."""
    if log_decay is None:
        return None
    logs = log_decay.double().cumsum(dim=2)
    dtype, last = log_decay.dtype, logs[:, :, -1:]
    return Decays(logs, logs.to(dtype).exp(), (last - logs).to(dtype).exp_(), last.mT.to(dtype).exp())


class _Block(NamedTuple):
    """A block of the scores of a chunk that is one product: rows are queries, columns keys.

    The decay between two tokens is that of the query since the token `reference` times that from the key to it.
    """

    rows: slice
    columns: slice
    reference: int


class Scores:
    """The scores q_i . conj(k_j) times the decay from token j to token i, zero where j is later.

    The decay is exp(G_i - G_j), G the running sum of log decays. Split into a factor of the query and one of the key,
    it makes the scores a product of matrices; but of strong decays one of the factors overflows. So a chunk is one
    block only if no sum of its decays goes beyond LARGEST_EXPONENT. Otherwise it is halved: between the halves the
    split is at the boundary, where both factors are at most 1 for any decays, and the halves are asked the same.
    """

    def __init__(self, q: Tensor, k: Tensor, logs: Tensor | None) -> None:
        """Queries and keys (n, size, key_size) of n chunks, and their running sums; None where nothing decays."""
        self._blocks = []
        size = q.shape[1]
        self.values = q.new_empty(q.shape[0], size, size)
        for block in [_Block(slice(size), slice(size), 0)] if logs is None else _blocks(logs, 0, size):
            rows, columns, reference = block
            by_row = by_column = None
            if logs is not None:
                zero = logs[:, reference : reference + 1]
                by_row = (logs[:, rows] - zero).to(q.real.dtype).exp_()
                by_column = (zero - logs[:, columns]).to(q.real.dtype).exp_()
            queries, keys = scaled(q[:, rows], by_row), scaled(k[:, columns], by_column)
            self._blocks.append((block, by_row, by_column, queries, keys))
            self.values[:, rows, columns] = queries @ adjoint(keys)
        self.values.tril_()

    def gradients(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Those of queries and keys, (n, size, key_size), from that of the scores, zero above the diagonal."""
        if len(self._blocks) == 1:
            _, by_row, by_column, queries, keys = self._blocks[0]
            return scaled(gradient @ keys, by_row), scaled(adjoint(gradient) @ queries, by_column)
        by_query, by_key = (gradient.new_zeros(*gradient.shape[:2], self._blocks[0][3].shape[2]) for _ in range(2))
        for (rows, columns, _), by_row, by_column, queries, keys in self._blocks:
            part = gradient[:, rows, columns]
            by_query[:, rows] += scaled(part @ keys, by_row)
            by_key[:, columns] += scaled(adjoint(part) @ queries, by_column)
        return by_query, by_key


def _blocks(logs: Tensor, first: int, stop: int) -> Iterator[_Block]:
    """The blocks of the scores of tokens from `first` to before `stop`."""
    here = logs[:, first:stop]
    if stop - first == 1 or (here - here[:, :1]).abs().max() <= LARGEST_EXPONENT:
        yield _Block(slice(first, stop), slice(first, stop), first)
        return
    middle = (first + stop) // 2
    yield _Block(slice(middle, stop), slice(first, middle), middle - 1)
    yield from _blocks(logs, first, middle)
    yield from _blocks(logs, middle, stop)
