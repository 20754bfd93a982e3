"""What the passes over chunks of tokens share: layout, decays, scores, and the triangular system. Names: `delta_rule`.

Inside, tensors are (chunks, streams, tokens, ...): a stream is a head of a row, and the last chunk is filled up with
tokens that change nothing.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seqbench_kernels.delta_rule.flops import chunks_of

LOG2_E = math.log2(math.e)

# Elements of the largest tensor of a piece: pieces of rows, and of chunks where one row is too long, are taken one
# after the other.
_PIECE_ELEMENTS = 2**19

# A chunk whose decay is 2 to the minus that, or less, is not taken apart into factors: products of all channels with
# keys and queries are then still far from the largest number of fp32, 2^128.
_LARGEST_POWER = 100


class Tokens(NamedTuple):
    """The arguments of `delta_rule` without the state, of some rows and chunks, all but the strengths as they come."""

    query: Tensor
    key: Tensor
    value: Tensor
    log_decay: Tensor | None
    strength: Tensor


class Piece(NamedTuple):
    """Some rows, and of those some chunks of `size` tokens; the last one may have fewer."""

    rows: slice
    tokens: slice
    chunks: slice
    size: int


def per_channel(log_decay: Tensor | None) -> bool:
    """Whether there is a decay for every channel of the keys."""
    return log_decay is not None and log_decay.dim() == 4


def pieces_of(key: Tensor, log_decay: Tensor | None) -> Iterator[list[Piece]]:
    """For each group of rows its pieces from the first token to the last."""
    batch, length, heads, key_size = key.shape
    count, size = chunks_of(length, per_channel(log_decay))
    of_chunk = heads * size * size * (key_size if per_channel(log_decay) else 1)
    together = max(1, _PIECE_ELEMENTS // of_chunk)
    chunks, rows = min(count, together), max(1, together // count)
    for row in range(0, batch, rows):
        yield [
            Piece(
                slice(row, min(row + rows, batch)),
                slice(chunk * size, min((chunk + chunks) * size, length)),
                slice(chunk, min(chunk + chunks, count)),
                size,
            )
            for chunk in range(0, count, chunks)
        ]


def taken(piece: Piece, tensor: Tensor) -> Tensor:
    """(chunks, streams, size, ...) of (batch, length, heads, ...), filled up with zeros."""
    part = tensor[piece.rows, piece.tokens]
    count, length = piece.chunks.stop - piece.chunks.start, part.shape[1]
    if length < count * piece.size:
        part = F.pad(part, (0, 0) * (part.dim() - 2) + (0, count * piece.size - length))
    laid = part.unflatten(1, (count, piece.size)).permute(1, 0, 3, 2, *range(4, part.dim() + 1))
    return laid.flatten(1, 2).contiguous()


def tokens_taken(piece: Piece, tokens: Tokens) -> Tokens:
    """All of them, laid out."""
    query, key, value, strength = (
        taken(piece, tensor) for tensor in (tokens.query, tokens.key, tokens.value, tokens.strength)
    )
    log_decay = None if tokens.log_decay is None else taken(piece, tokens.log_decay)
    return Tokens(query, key, value, log_decay, strength)


def put(piece: Piece, values: Tensor, target: Tensor) -> None:
    """The way back: (chunks, streams, size, ...) into (batch, length, heads, ...)."""
    part = target[piece.rows, piece.tokens]
    laid = values.unflatten(1, (part.shape[0], part.shape[2])).transpose(0, 1).transpose(2, 3)
    part.copy_(laid.flatten(1, 2)[:, : part.shape[1]])


class Decays(NamedTuple):
    """What stays over parts of a chunk; one number for all channels or one for each in the last dimension.

    Attributes:
        from_start: (chunks, streams, size, 1 or key_size), from before the chunk to after each token.
        to_end: of the same shape, from after each token to the end of the chunk.
        whole: (chunks, streams, 1, 1 or key_size), over the chunk.
        backwards: 1 / from_start; None where that may overflow.
        between: where it may, from token j to token i, 0 where j is later, (chunks, streams, size, size) or, per
            channel, (chunks, streams, size, size, key_size); else None.
    """

    from_start: Tensor
    to_end: Tensor
    whole: Tensor
    backwards: Tensor | None
    between: Tensor | None


def decays_of(log_decay: Tensor) -> Decays:
    """Of log decays (chunks, streams, size) or (chunks, streams, size, key_size).

    From token j to token i it is exp(G_i) exp(-G_j), unless a chunk forgets so much that a factor overflows. Sums, and
    then their differences too, are taken in fp64: a sum may be large where a difference is small.
    """
    dtype, logs = log_decay.dtype, log_decay if log_decay.dim() == 4 else log_decay.unsqueeze(-1)
    sums = (logs.double() * LOG2_E).cumsum(dim=2)
    last = sums[:, :, -1:]
    if last.min().item() > -_LARGEST_POWER:
        from_start = sums.exp2().to(dtype)
        backwards, whole = from_start.reciprocal(), from_start[:, :, -1:]
        return Decays(from_start, backwards * whole, whole, backwards, None)
    size = sums.shape[2]
    future = torch.full((size, size), -math.inf, dtype=dtype, device=sums.device).triu_(1)
    if log_decay.dim() == 4:
        between = (sums.unsqueeze(3) - sums.unsqueeze(2)).to(dtype).add_(future.unsqueeze(-1)).exp2_()
    else:
        between = (sums - sums.transpose(2, 3)).to(dtype).add_(future).exp2_()
    return Decays(sums.to(dtype).exp2(), (last - sums).to(dtype).exp2_(), last.to(dtype).exp2(), None, between)
