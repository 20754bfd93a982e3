"""The memory write as torch operators, forward and backward: torch.compile and autocast see one node each.

Query and values (B, T, M), keys (B or 1, T or 1, N, M), weights (B, T, N), all of one dtype; `path` is "cpu" or
"triton". No matrix product belongs to them, so torch's FLOP counter has nothing to count.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from seqbench_kernels.memory_write import cpu, triton_path

_PATHS: dict[str, ModuleType] = {"cpu": cpu, "triton": triton_path}


@torch.library.custom_op("seqbench::memory_write", mutates_args=())
def write(query: Tensor, keys: Tensor, values: Tensor, path: str) -> tuple[Tensor, Tensor]:
    """Weights, (B, T, N), and increments, (B, T, N, M)."""
    weights = _PATHS[path].weights(query.flatten(0, 1), _flat_keys(keys, query))
    increments = _PATHS[path].increments(weights, values.flatten(0, 1))
    return weights.unflatten(0, query.shape[:2]), increments.unflatten(0, query.shape[:2])


@write.register_fake
def _(query: Tensor, keys: Tensor, values: Tensor, path: str) -> tuple[Tensor, Tensor]:
    weights = query.new_empty(*query.shape[:2], keys.shape[2])
    return weights, query.new_empty(*weights.shape, query.shape[2])


@torch.library.custom_op("seqbench::memory_write_backward", mutates_args=())
def write_backward(
    by_weights: Tensor, by_increments: Tensor, query: Tensor, keys: Tensor, values: Tensor, weights: Tensor, path: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, keys and values."""
    through, by_values = _PATHS[path].increments_gradient(
        by_increments.flatten(0, 1), weights.flatten(0, 1), values.flatten(0, 1)
    )
    by_weights = through.add_(by_weights.flatten(0, 1))
    by_query, by_keys = _PATHS[path].weights_gradient(
        by_weights, query.flatten(0, 1), _flat_keys(keys, query), weights.flatten(0, 1)
    )
    return by_query.view(query.shape), _sum_to(by_keys, query, keys), by_values.view(values.shape)


@write_backward.register_fake
def _(
    by_weights: Tensor, by_increments: Tensor, query: Tensor, keys: Tensor, values: Tensor, weights: Tensor, path: str
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), keys.new_empty(keys.shape), values.new_empty(values.shape)


@torch.library.custom_op("seqbench::slot_weights", mutates_args=())
def slot_weights(query: Tensor, keys: Tensor, path: str) -> Tensor:
    """The weights of `write` alone."""
    return _PATHS[path].weights(query.flatten(0, 1), _flat_keys(keys, query)).unflatten(0, query.shape[:2])


@slot_weights.register_fake
def _(query: Tensor, keys: Tensor, path: str) -> Tensor:
    return query.new_empty(*query.shape[:2], keys.shape[2])


@torch.library.custom_op("seqbench::slot_weights_backward", mutates_args=())
def slot_weights_backward(
    gradient: Tensor, query: Tensor, keys: Tensor, weights: Tensor, path: str
) -> tuple[Tensor, Tensor]:
    """Gradients of query and keys."""
    by_query, by_keys = _PATHS[path].weights_gradient(
        gradient.flatten(0, 1), query.flatten(0, 1), _flat_keys(keys, query), weights.flatten(0, 1)
    )
    return by_query.view(query.shape), _sum_to(by_keys, query, keys)


@slot_weights_backward.register_fake
def _(gradient: Tensor, query: Tensor, keys: Tensor, weights: Tensor, path: str) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), keys.new_empty(keys.shape)


def _flat_keys(keys: Tensor, query: Tensor) -> Tensor:
    """Keys of all tokens in one dimension, of size 1 where all share them."""
    if keys.shape[:2] != (1, 1):
        keys = keys.expand(*query.shape[:2], -1, -1)
    return keys.flatten(0, 1)


def _sum_to(gradient: Tensor, query: Tensor, keys: Tensor) -> Tensor:
    """The gradient of `_flat_keys` in the shape of the keys."""
    if gradient.shape[0] > 1:
        gradient = gradient.unflatten(0, query.shape[:2])
    return gradient.sum_to_size(keys.shape) if gradient.numel() != keys.numel() else gradient.view(keys.shape)


def _keep_write(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.path = inputs
    ctx.save_for_backward(*tensors, output[0])


def _differentiate_write(ctx: Any, by_weights: Tensor, by_increments: Tensor) -> tuple[Tensor | None, ...]:
    return *write_backward(by_weights, by_increments, *ctx.saved_tensors, ctx.path), None


def _keep_weights(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.path = inputs
    ctx.save_for_backward(*tensors, output)


def _differentiate_weights(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return *slot_weights_backward(gradient, *ctx.saved_tensors, ctx.path), None


write.register_autograd(_differentiate_write, setup_context=_keep_write)
slot_weights.register_autograd(_differentiate_weights, setup_context=_keep_weights)
