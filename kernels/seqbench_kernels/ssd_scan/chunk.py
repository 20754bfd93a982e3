"""What the passes over a chunk of tokens share: its buffers, its decays and its scores. For names see `ssd_scan`."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from seqbench_kernels.ssd_scan.flops import CHUNK

LOG2_E = math.log2(math.e)

# Elements of a chunk's largest buffer, (rows, heads, chunk, chunk), 1 MiB in fp32: on CPU larger batches are scanned in
# groups of rows.
_BUFFER_ELEMENTS = 2**18


def row_groups(x: Tensor) -> list[slice]:
    """Groups of rows of (batch, length, heads, head_dim) that are scanned one after the other."""
    batch, length, heads, _ = x.shape
    rows = batch
    if x.device.type == "cpu":
        rows = max(1, _BUFFER_ELEMENTS // (heads * min(CHUNK, length) ** 2))
    return [slice(first, min(first + rows, batch)) for first in range(0, batch, rows)]


class Buffers:
    """Memory that all chunks of a group of rows use one after the other."""

    def __init__(self, x: Tensor, B: Tensor) -> None:
        rows, length, heads, head_dim = x.shape
        size = min(CHUNK, length)
        pairs, values = rows * heads * size * size, rows * heads * size * head_dim
        self.difference = x.new_empty(pairs, dtype=torch.float64)
        self.decay, self.weights = x.new_empty(pairs), x.new_empty(pairs)
        self.by_head, self.by_group, self.products = (x.new_empty(values) for _ in range(3))
        self.scores = x.new_empty(rows * B.shape[2] * size * size)
        # Added to a difference of log decays it hides the later of two tokens.
        self.future = x.new_full((size, size), -math.inf).triu_(1)


class Decays(NamedTuple):
    """Decays of a chunk of q tokens; r heads share a group.

    Attributes:
        from_start: (rows, groups, q, r, 1), from before the chunk to after each token.
        to_end: (rows, groups, q, r, 1), from after each token to the end of the chunk.
        whole: (rows, heads, 1, 1), over the whole chunk.
        between: (rows, groups, r, q, q), from token j to token i; zero where j is later. In `Buffers.decay`.
    """

    from_start: Tensor
    to_end: Tensor
    whole: Tensor
    between: Tensor


def decays_of(dt: Tensor, A: Tensor, groups: int, buffers: Buffers) -> Decays:
    """The decays of a chunk from its step sizes, (rows, q, heads), and A."""
    rows, size, heads = dt.shape
    logs = (dt.transpose(1, 2).double() * (A.double() * LOG2_E).unsqueeze(-1)).cumsum(dim=-1)
    shape = rows, heads, size, size
    difference = torch.sub(logs.unsqueeze(-1), logs.unsqueeze(-2), out=shaped(buffers.difference, *shape))
    between = shaped(buffers.decay, *shape).copy_(difference).add_(buffers.future[:size, :size]).exp2_()
    grouped = logs.view(rows, groups, -1, size).transpose(2, 3).unsqueeze(-1)
    return Decays(
        grouped.to(dt.dtype).exp2(),
        (grouped[:, :, -1:] - grouped).to(dt.dtype).exp2(),
        logs[:, :, -1, None, None].to(dt.dtype).exp2(),
        between.view(rows, groups, -1, size, size),
    )


def scores_of(B: Tensor, C: Tensor, buffers: Buffers) -> tuple[Tensor, Tensor, Tensor]:
    """B and C as (rows x groups, q, state), and C_i . B_j as (rows, groups, 1, q, q)."""
    rows, size, groups, _ = B.shape
    B, C = (tensor.transpose(1, 2).reshape(rows * groups, size, -1) for tensor in (B, C))
    scores = torch.bmm(C, B.transpose(1, 2), out=shaped(buffers.scores, rows * groups, size, size))
    return B, C, scores.view(rows, groups, 1, size, size)


def step_inputs(x: Tensor, dt: Tensor, buffers: Buffers) -> Tensor:
    """The products dt x as (rows, heads, q, head_dim)."""
    x = x.transpose(1, 2)
    return torch.mul(x, dt.transpose(1, 2).unsqueeze(-1), out=shaped(buffers.by_head, *x.shape))


def inputs_to_end(x: Tensor, dt: Tensor, decays: Decays, buffers: Buffers) -> Tensor:
    """The products dt x, decayed to the end of the chunk, as (rows x groups, q, heads of a group x head_dim)."""
    rows, groups, size, _, _ = decays.to_end.shape
    scale = by_group(dt.unsqueeze(-1), groups) * decays.to_end
    x = by_group(x, groups)
    return torch.mul(x, scale, out=shaped(buffers.by_group, *x.shape)).view(rows * groups, size, -1)


def by_group(tensor: Tensor, groups: int) -> Tensor:
    """(rows, q, heads, ...) seen as (rows, groups, q, heads of a group, ...)."""
    return tensor.unflatten(2, (groups, -1)).transpose(1, 2)


def shaped(buffer: Tensor, *shape: int) -> Tensor:
    """The front of a flat buffer in that shape."""
    return buffer[: math.prod(shape)].view(shape)
