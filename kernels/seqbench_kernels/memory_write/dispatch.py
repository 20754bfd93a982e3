"""The public memory write, and which path it takes."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from seqbench_kernels.arguments import wants_gradient
from seqbench_kernels.devices import cpu_unavailable
from seqbench_kernels.dispatch import REFERENCE, Operation, Path
from seqbench_kernels.memory_write import operators
from seqbench_kernels.memory_write.reference import memory_write_reference, slot_weights_reference
from seqbench_kernels.triton_support import triton_unavailable


def memory_write(query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """How a token's write is shared among the slots of its group, and what each slot receives.

    PMNet, arXiv 2605.13370: s = softmax_n(sum_j cos(phi(q_j) - phi(k_nj)) / sqrt(M)) and D_n = s_n phi(v), with
    phi(x) = pi tanh(x).

    Args:
        query: (B, T, M), before phi, of B sequences of T tokens with M angles a slot.
        keys: (B, T, N, M), before phi, of N slots; B and T may be 1 where sequences or tokens share them.
        values: (B, T, M), before phi.

    Returns:
        The weights s, (B, T, N), and the increments D, (B, T, N, M) radians; both fp32, or fp64 when the query is.

    Raises UnknownPathError when the path that was asked for (seqbench_kernels.dispatch) cannot serve.
    """
    path, (query, keys, values) = _prepare(query, keys, values)
    if path == REFERENCE:
        return memory_write_reference(query, keys, values)
    weights, increments, *_ = operators.write(
        query, _expanded(keys, query), values, path, _keep(path, query, keys, values)
    )
    return weights, increments


def slot_weights(query: Tensor, keys: Tensor) -> Tensor:
    """The weights of `memory_write` alone, for writes whose increments are others."""
    path, (query, keys) = _prepare(query, keys)
    if path == REFERENCE:
        return slot_weights_reference(query, keys)
    weights, *_ = operators.slot_weights(query, _expanded(keys, query), path, _keep(path, query, keys))
    return weights


def _prepare(query: Tensor, *others: Tensor) -> tuple[str, list[Tensor]]:
    """The path, and the tensors in the dtype that is computed in."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    return OPERATION.choose(query.device, dtype), [tensor.to(dtype) for tensor in (query, *others)]


def _expanded(keys: Tensor, query: Tensor) -> Tensor:
    """The keys of each token, unless all tokens share them."""
    return keys if keys.shape[:2] == (1, 1) else keys.expand(*query.shape[:2], -1, -1)


def _keep(path: str, *arguments: Tensor) -> bool:
    """Whether a backward pass may want what "cpu" can keep for it."""
    return path == "cpu" and wants_gradient(*arguments)


def _cases(device: torch.device) -> Mapping[str, Callable[[], tuple[Any, ...]]]:
    def case(batch: int, length: int, slots: int, angles: int) -> Callable[[], tuple[Any, ...]]:
        def build() -> tuple[Any, ...]:
            shapes = ((batch, length, angles), (batch, length, slots, angles), (batch, length, angles))
            return tuple(torch.randn(shape, device=device).requires_grad_() for shape in shapes)

        return build

    return {"119m": case(1, 512, 4, 512), "tiny": case(64, 40, 4, 16)}


OPERATION = Operation(
    "memory_write",
    memory_write,
    (Path("cpu", cpu_unavailable), Path("triton", triton_unavailable), Path(REFERENCE)),
    _cases,
)
