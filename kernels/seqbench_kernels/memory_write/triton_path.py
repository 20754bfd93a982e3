"""The memory write with Triton kernels: one for each of weights, increments and their gradients.

Inputs are fp32 or bf16 and are widened when they are loaded; everything else is fp32. The gradient of keys that all
tokens share is summed in a fixed order, so that repeats are identical. Tested through Triton's interpreter, and
compiled ahead of time for compute capabilities 8.0 and 9.0; a test that needs a CUDA device compares compiled results,
and has not been run so far.
"""

import math
from typing import Any

import torch
from torch import Tensor

from seqbench_kernels.triton_support import on_device_of

# Angles of a slot that a program takes at a time: with 4 slots, 16 numbers a thread of four warps.
_COLUMNS = 512
# Tokens whose gradients of shared keys one program adds up.
_SHARED_TOKENS = 16


def weights(query: Tensor, keys: Tensor) -> Tensor:
    """`slot_weights` of (tokens, M) and (tokens or 1, N, M): (tokens, N) fp32."""
    from seqbench_kernels.memory_write import triton_kernels

    query, keys = query.contiguous(), keys.contiguous()
    tokens, angles = query.shape
    result = query.new_empty(tokens, keys.shape[1], dtype=torch.float32)
    with on_device_of(query):
        triton_kernels.slot_weights[(tokens,)](
            query, keys, result, _key_stride(keys), 1 / math.sqrt(angles), **_sizes(keys.shape[1], angles)
        )
    return result


def weights_gradient(gradient: Tensor, query: Tensor, keys: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of query and keys, in their dtypes, from that of the weights, (tokens, N)."""
    from seqbench_kernels.memory_write import triton_kernels

    gradient, query, keys = gradient.contiguous(), query.contiguous(), keys.contiguous()
    tokens, angles = query.shape
    slots = keys.shape[1]
    shared = len(keys) == 1
    per_program = _SHARED_TOKENS if shared else 1
    programs = -(-tokens // per_program)
    sizes = _sizes(slots, angles)
    query_gradient = torch.empty_like(query)
    key_gradient = query.new_empty(programs, slots, angles, dtype=torch.float32) if shared else torch.empty_like(keys)
    with on_device_of(query):
        triton_kernels.slot_weights_gradient[(programs, -(-angles // sizes["COLUMNS"]))](
            gradient, query, keys, weights, query_gradient, key_gradient,
            tokens, _key_stride(keys), 1 / math.sqrt(angles), SHARED=shared, TOKENS=per_program, **sizes,
        )  # fmt: skip
    if shared:
        key_gradient = key_gradient.sum(dim=0, keepdim=True).to(keys.dtype)
    return query_gradient, key_gradient


def increments(weights: Tensor, values: Tensor) -> Tensor:
    """`slot_increments` of (tokens, N) and (tokens, M): (tokens, N, M) fp32."""
    from seqbench_kernels.memory_write import triton_kernels

    weights, values = weights.contiguous(), values.contiguous()
    tokens, slots = weights.shape
    angles = values.shape[1]
    sizes = _sizes(slots, angles)
    result = values.new_empty(tokens, slots, angles, dtype=torch.float32)
    with on_device_of(values):
        triton_kernels.slot_increments[(tokens, -(-angles // sizes["COLUMNS"]))](weights, values, result, **sizes)
    return result


def increments_gradient(gradient: Tensor, weights: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of weights and values, in their dtypes, from that of the increments, (tokens, N, M)."""
    from seqbench_kernels.memory_write import triton_kernels

    gradient, weights, values = gradient.contiguous(), weights.contiguous(), values.contiguous()
    tokens, slots, angles = gradient.shape
    weights_gradient, values_gradient = torch.empty_like(weights), torch.empty_like(values)
    with on_device_of(values):
        triton_kernels.slot_increments_gradient[(tokens,)](
            gradient, weights, values, weights_gradient, values_gradient, **_sizes(slots, angles)
        )
    return weights_gradient, values_gradient


def _key_stride(keys: Tensor) -> int:
    return 0 if len(keys) == 1 else keys.shape[1] * keys.shape[2]


def _sizes(slots: int, angles: int) -> dict[str, Any]:
    """What the kernels are compiled for; fewer warps where a token has few numbers."""
    padded = _power_of_two(slots)
    columns = min(_power_of_two(angles), _COLUMNS)
    warps = min(4, max(1, padded * columns // 512))
    shape = {"SLOTS": slots, "PADDED": padded, "ANGLES": angles, "COLUMNS": columns}
    return {**shape, "num_warps": warps, "enable_fp_fusion": True}


def _power_of_two(number: int) -> int:
    """The next one, from the number itself on."""
    return 1 << (number - 1).bit_length()
