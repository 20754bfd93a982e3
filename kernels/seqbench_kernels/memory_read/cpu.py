"""The memory read in torch operations on chunks of tokens, with a gradient written by hand; any device.

Matrix products run on chunks that are large enough for the library's full speed, write into buffers that the chunks
share, and accumulate in place.
"""

import torch
from torch import Tensor

from seqbench_kernels.memory_read.gradients import ParameterGradients
from seqbench_kernels.memory_read.keys import Keys
from seqbench_kernels.memory_read.values import MixThenProject, ProjectThenMix

# Elements (tokens x slots x heads x angles) of a chunk: 256 tokens of the 119M shape, whose matrix products have 1,024
# rows. Measured on 2 CPU cores: half of it takes 1.01 of the time with one thread and 1.07 with two, twice as much is
# no faster.
_CHUNK_ELEMENTS = 2**21

# Up to this many angles it is faster to project all slots than to mix them token by token (measured on 2 CPU cores).
_PROJECT_FIRST_UP_TO = 16


def read_forward(
    query: Tensor, slots: Tensor, weight: Tensor, bias: Tensor, keep_keys: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Read the slots of each token.

    Args:
        query: (tokens, R, M), before phi.
        slots: (tokens, N, 2M), contiguous, fp64 where `weight` is and else fp32.
        weight: (2 R M, 2M): R key heads, then R value heads.
        bias: (2 R M,), in the dtype of `weight`.
        keep_keys: whether to return what spares the backward pass the projection of the keys.

    Returns:
        Values (tokens, R M) in the dtype of `weight`; the weights of the slots (tokens, R, N) in the dtype of `slots`;
        and sigmoid(2k) of the keys k before phi, (tokens, N, R M) in that dtype, or an empty tensor.
    """
    tokens, heads, angles = query.shape
    count, width = slots.shape[1], heads * angles
    values, weights = weight.new_empty(tokens, width), slots.new_empty(tokens, heads, count)
    kept = slots.new_empty(tokens if keep_keys else 0, count, width)
    size = _chunk_size(tokens, count * width)
    key_half, value_half = Keys(size, query, slots, weight, bias), _value_half(size, query, slots, weight, bias)
    buffer = kept if keep_keys else slots.new_empty(size, count, width)
    for start in range(0, tokens, size):
        chunk = slice(start, min(start + size, tokens))
        keys = kept[chunk] if keep_keys else buffer[: chunk.stop - start]
        key_half.project(slots[chunk], keys)
        scores = key_half.scores(query[chunk], keys)
        weights[chunk] = scores.softmax(dim=1).transpose(1, 2)
        value_half.forward(slots[chunk], weights[chunk], values[chunk])
    return values, weights, kept


def read_backward(
    gradient: Tensor, query: Tensor, slots: Tensor, weight: Tensor, bias: Tensor, weights: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `query`, `slots`, `weight` and `bias`, each in the dtype of its tensor and contiguous.

    `gradient` is that of the values, `weights` and `kept` are what `read_forward` returned; keys that were not kept are
    projected again.
    """
    tokens, heads, angles = query.shape
    count, width = slots.shape[1], heads * angles
    query_gradient = torch.empty_like(query, memory_format=torch.contiguous_format)
    slots_gradient = torch.empty_like(slots, memory_format=torch.contiguous_format)
    parameters = ParameterGradients(weight, bias, slots.dtype)
    size = _chunk_size(tokens, count * width)
    key_half, value_half = Keys(size, query, slots, weight, bias), _value_half(size, query, slots, weight, bias)
    buffer = slots.new_empty(size, count, width)
    for start in range(0, tokens, size):
        chunk = slice(start, min(start + size, tokens))
        by_weights = value_half.backward(
            gradient[chunk], slots[chunk], weights[chunk], slots_gradient[chunk], parameters
        )
        # Keys that are projected again are spent where their gradient is formed.
        by_keys = buffer[: chunk.stop - start]
        keys = kept[chunk] if kept.numel() else by_keys
        if not kept.numel():
            key_half.project(slots[chunk], keys)
        by_scores = _softmax_backward(by_weights, weights[chunk]).transpose(1, 2)
        key_half.backward(by_scores, query[chunk], keys, kept.numel() > 0, query_gradient[chunk], by_keys)
        key_half.project_backward(by_keys, slots[chunk], slots_gradient[chunk], parameters)
    return query_gradient, slots_gradient, *parameters.result()


def _chunk_size(tokens: int, elements: int) -> int:
    """Tokens of a chunk, so that chunks are of nearly one size: a short last one would be slow."""
    count = max(1, -(-tokens * elements // _CHUNK_ELEMENTS))
    return max(1, -(-tokens // count))


def _value_half(
    size: int, query: Tensor, slots: Tensor, weight: Tensor, bias: Tensor
) -> MixThenProject | ProjectThenMix:
    order = ProjectThenMix if query.shape[2] <= _PROJECT_FIRST_UP_TO else MixThenProject
    return order(size, query, slots, weight, bias)


def _softmax_backward(gradient: Tensor, weights: Tensor) -> Tensor:
    """The gradient of the scores from that of their softmax over the last dimension."""
    weighted = gradient * weights
    return weighted.addcmul_(weights, weighted.sum(dim=-1, keepdim=True), value=-1)
