"""The memory read as an operation: its choice of path, and the custom operators that compilers and counters see."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from seqbench_kernels.arguments import require_shapes, wants_gradient
from seqbench_kernels.dispatch import REFERENCE, Operation, Path
from seqbench_kernels.memory_read import cpu
from seqbench_kernels.memory_read.reference import memory_read_reference
from seqbench_kernels.triton_support import triton_unavailable

_TRITON, _CPU, _CPU_RECOMPUTE = "triton", "cpu", "cpu-recompute"


def memory_read(query: Tensor, slots: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each token's heads attend over the slots of its own group (PMNet, arXiv 2605.13370).

    [K_n ; V_n] = W slots_n + b; s = softmax_n(sum_j cos(phi(q_j) - phi(K_nj)) / sqrt(M)) with phi(x) = pi tanh(x); the
    result is sum_n s_n V_n, for each of R heads. Under autocast, query and parameters are cast to its dtype here.

    Paths: "triton" on CUDA devices. "cpu" keeps 4 N R M bytes a token for the backward pass, in fp32, beside what all
    keep: the arguments and the softmax weights. "cpu-recompute" keeps nothing else and projects the keys twice. Both
    are torch operations that run on any device, and "cpu" is what a CUDA device gets where Triton cannot serve.
    "reference" is the definition, differentiated by autograd.

    Args:
        query: (B, T, R, M), before phi, in any floating-point dtype.
        slots: (B, T, N, 2M), geo(m + e): sines and then cosines, possibly gated; fp32, or fp64 beside fp64 parameters.
        weight: (2 R M, 2M), the R key heads before the R value heads; its dtype is that of the matrix products and of
            the result. Scores, softmax and mix are fp32, or fp64 where the parameters are.
        bias: (2 R M,).

    Returns:
        (B, T, R M) in the dtype of `weight`. Gradients reach all four arguments; first derivatives only, except on
        "reference".

    Raises:
        ValueError: for shapes that do not fit each other.
        UnknownPathError: when a path was asked for that cannot serve.
    """
    _check_shapes(query, slots, weight, bias)
    device = slots.device.type
    if torch.is_autocast_enabled(device) and weight.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        query, weight, bias = query.to(dtype), weight.to(dtype), bias.to(dtype)
    slots = slots.to(torch.float64 if weight.dtype == torch.float64 else torch.float32)
    path = OPERATION.choose(slots.device, weight.dtype)
    if path == REFERENCE:
        return memory_read_reference(query, slots, weight, bias)
    keep_keys = path == _CPU and wants_gradient(query, slots, weight, bias)
    values, _, _ = _memory_read(query.flatten(0, 1), slots.flatten(0, 1), weight, bias, path, keep_keys)
    return values.unflatten(0, query.shape[:2])


def _check_shapes(query: Tensor, slots: Tensor, weight: Tensor, bias: Tensor) -> None:
    if query.dim() != 4 or slots.dim() != 4:
        raise ValueError(
            "query must be (batch, length, heads, angles) and slots (batch, length, slots, 2 x angles), not"
            f" {tuple(query.shape)} and {tuple(slots.shape)}"
        )
    heads, angles = query.shape[2:]
    require_shapes(
        "query",
        query,
        {
            "slots": (slots, (*query.shape[:2], slots.shape[2], 2 * angles)),
            "weight": (weight, (2 * heads * angles, 2 * angles)),
            "bias": (bias, (2 * heads * angles,)),
        },
    )


# Below, a batch's tokens are one dimension. The second result is the softmax weights of the slots (tokens, R, N), the
# third what "cpu" keeps of the keys, or empty.


@torch.library.custom_op("seqbench::memory_read", mutates_args=())
def _memory_read(
    query: Tensor, slots: Tensor, weight: Tensor, bias: Tensor, path: str, keep_keys: bool
) -> tuple[Tensor, Tensor, Tensor]:
    # Autocast, where it is on, would reach into the products of fp32.
    with torch.autocast(slots.device.type, enabled=False):
        if path != _TRITON:
            return cpu.read_forward(query, slots.contiguous(), weight, bias, keep_keys)
        from seqbench_kernels.memory_read import triton_path

        return *triton_path.read_forward(query, slots, weight, bias), slots.new_empty(0, slots.shape[1], 0)


@torch.library.custom_op("seqbench::memory_read_backward", mutates_args=())
def _memory_read_backward(
    gradient: Tensor,
    query: Tensor,
    slots: Tensor,
    weight: Tensor,
    bias: Tensor,
    softmax_weights: Tensor,
    keys: Tensor,
    path: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with torch.autocast(slots.device.type, enabled=False):
        if path != _TRITON:
            return cpu.read_backward(gradient, query, slots.contiguous(), weight, bias, softmax_weights, keys)
        from seqbench_kernels.memory_read import triton_path

        return triton_path.read_backward(gradient, query, slots, weight, bias, softmax_weights)


@_memory_read.register_fake
def _(
    query: Tensor, slots: Tensor, weight: Tensor, bias: Tensor, path: str, keep_keys: bool
) -> tuple[Tensor, Tensor, Tensor]:
    tokens, heads, angles = query.shape
    count, width = slots.shape[1], heads * angles
    return (
        weight.new_empty(tokens, width),
        slots.new_empty(tokens, heads, count),
        slots.new_empty(0, count, 0) if path == _TRITON else slots.new_empty(tokens if keep_keys else 0, count, width),
    )


@_memory_read_backward.register_fake
def _(gradient: Tensor, query: Tensor, slots: Tensor, weight: Tensor, bias: Tensor, *unused: Any) -> tuple[Tensor, ...]:
    return tuple(
        torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (query, slots, weight, bias)
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    query, slots, weight, bias, ctx.path, _ = inputs
    _, softmax_weights, keys = output
    ctx.save_for_backward(query, slots, weight, bias, softmax_weights, keys)
    ctx.mark_non_differentiable(softmax_weights, keys)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, gradient: Tensor | None, *unused: None) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return None, None, None, None, None, None
    return *_memory_read_backward(gradient, *ctx.saved_tensors, ctx.path), None, None


_memory_read.register_autograd(_backward, setup_context=_keep)


def _flops(query: torch.Size, slots: torch.Size) -> int:
    """Of the matrix products of one pass: keys, mix and values. What a backward pass repeats is not counted."""
    tokens, heads, angles = query
    count, features = slots[1:]
    return 2 * tokens * (count * features * heads * angles + heads * count * features + heads * features * angles)


@register_flop_formula(torch.ops.seqbench.memory_read)
def _forward_flops(query: torch.Size, slots: torch.Size, *unused: Any, **also_unused: Any) -> int:
    return _flops(query, slots)


@register_flop_formula(torch.ops.seqbench.memory_read_backward)
def _backward_flops(
    gradient: torch.Size, query: torch.Size, slots: torch.Size, *unused: Any, **also_unused: Any
) -> int:
    return 2 * _flops(query, slots)


def _cases(device: torch.device) -> Mapping[str, Callable[[], tuple[Any, ...]]]:
    def case(batch: int, length: int, slots: int, heads: int, angles: int) -> Callable[[], tuple[Any, ...]]:
        def build() -> tuple[Any, ...]:
            phases = torch.randn(batch, length, slots, angles, device=device)
            # Parameters and queries as wide as an initialised model's (standard deviation 0.02 of weights).
            arguments = (
                torch.randn(batch, length, heads, angles, device=device),
                torch.cat((phases.sin(), phases.cos()), dim=-1),
                0.02 * torch.randn(2 * heads * angles, 2 * angles, device=device),
                torch.zeros(2 * heads * angles, device=device),
            )
            return tuple(argument.requires_grad_() for argument in arguments)

        return build

    # The read of a layer of the published 119M model, and of the small model of the default run.
    return {"119m": case(1, 512, 4, 4, 512), "tiny": case(64, 40, 4, 2, 16)}


OPERATION = Operation(
    "memory_read",
    memory_read,
    (
        # Triton's interpreter, which serves CPU tensors too, is for tests.
        Path(_TRITON, triton_unavailable, by_default="cuda"),
        Path(_CPU),
        Path(_CPU_RECOMPUTE, by_default=False),
        Path(REFERENCE),
    ),
    _cases,
)
