"""The memory write as torch operators, forward and backward: torch.compile and autocast see one node each.

Query and values (B, T, M), keys (B, T, N, M) or (1, 1, N, M), weights (B, T, N), all of one dtype; `path` is "cpu" or
"triton". No matrix product belongs to them, so torch's FLOP counter has nothing to count.

`keep`, for "cpu" alone, asks for sigmoid(2x) of query and keys and tanh of the values as further results: the backward
pass then takes them (`kept`) in place of the arguments and need not compute them again. Without, they are empty.
"""

from typing import Any

import torch
from torch import Tensor

from seqbench_kernels.memory_write import cpu, triton_path

_CPU = "cpu"


@torch.library.custom_op("seqbench::memory_write", mutates_args=())
def write(
    query: Tensor, keys: Tensor, values: Tensor, path: str, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Weights, (B, T, N), and increments, (B, T, N, M); then what is kept of query, keys and values."""
    weights, kept_query, kept_keys = _weights(query, keys, path, keep)
    kept_values = values.new_empty(0)
    if path == _CPU:
        increments, tangents = cpu.increments(weights.flatten(0, 1), values.flatten(0, 1))
        kept_values = tangents.view(values.shape) if keep else kept_values
    else:
        increments = triton_path.increments(weights.flatten(0, 1), values.flatten(0, 1))
    return weights, increments.unflatten(0, query.shape[:2]), kept_query, kept_keys, kept_values


@write.register_fake
def _(
    query: Tensor, keys: Tensor, values: Tensor, path: str, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    weights = query.new_empty(*query.shape[:2], keys.shape[2])
    increments = query.new_empty(*weights.shape, query.shape[2])
    kept_query, kept_keys, kept_values = _empty_kept(keep, query, keys, values)
    return weights, increments, kept_query, kept_keys, kept_values


@torch.library.custom_op("seqbench::memory_write_backward", mutates_args=())
def write_backward(
    by_weights: Tensor,
    by_increments: Tensor,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    weights: Tensor,
    path: str,
    kept: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, keys and values."""
    own_values, own_weights, own_gradient = (x.flatten(0, 1) for x in (values, weights, by_increments))
    if path == _CPU:
        own_values = own_values if kept else cpu.tangent(own_values)
        through, by_values = cpu.increments_gradient(own_gradient, own_weights, own_values)
    else:
        through, by_values = triton_path.increments_gradient(own_gradient, own_weights, own_values)
    through = through.view(weights.shape).add_(by_weights)
    return *_weights_gradient(through, query, keys, weights, path, kept), by_values.view(values.shape)


@write_backward.register_fake
def _(
    by_weights: Tensor, by_increments: Tensor, query: Tensor, keys: Tensor, values: Tensor, *unused: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), keys.new_empty(keys.shape), values.new_empty(values.shape)


@torch.library.custom_op("seqbench::slot_weights", mutates_args=())
def slot_weights(query: Tensor, keys: Tensor, path: str, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of `write` alone, then what is kept of query and keys."""
    return _weights(query, keys, path, keep)


@slot_weights.register_fake
def _(query: Tensor, keys: Tensor, path: str, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    kept_query, kept_keys = _empty_kept(keep, query, keys)
    return query.new_empty(*query.shape[:2], keys.shape[2]), kept_query, kept_keys


@torch.library.custom_op("seqbench::slot_weights_backward", mutates_args=())
def slot_weights_backward(
    gradient: Tensor, query: Tensor, keys: Tensor, weights: Tensor, path: str, kept: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of query and keys."""
    return _weights_gradient(gradient, query, keys, weights, path, kept)


@slot_weights_backward.register_fake
def _(gradient: Tensor, query: Tensor, keys: Tensor, *unused: Any) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), keys.new_empty(keys.shape)


def _weights(query: Tensor, keys: Tensor, path: str, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """`slot_weights` on a path."""
    own_query, own_keys = query.flatten(0, 1), keys.flatten(0, 1)
    kept_query, kept_keys = _empty_kept(keep, query, keys)
    if path == _CPU:
        weights, bounded = cpu.weights(own_query, own_keys, kept_keys.flatten(0, 1) if keep else None)
        kept_query = bounded.view(query.shape) if keep else kept_query
    else:
        weights = triton_path.weights(own_query, own_keys)
    return weights.unflatten(0, query.shape[:2]), kept_query, kept_keys


def _weights_gradient(
    gradient: Tensor, query: Tensor, keys: Tensor, weights: Tensor, path: str, kept: bool
) -> tuple[Tensor, Tensor]:
    """`slot_weights_backward` on a path."""
    own_gradient, own_query, own_keys, own_weights = (x.flatten(0, 1) for x in (gradient, query, keys, weights))
    if path == _CPU:
        own_query, own_keys = (own_query, own_keys) if kept else (cpu.bounded(own_query), cpu.bounded(own_keys))
        by_query, by_keys = cpu.weights_gradient(own_gradient, own_query, own_keys, own_weights)
    else:
        by_query, by_keys = triton_path.weights_gradient(own_gradient, own_query, own_keys, own_weights)
    return by_query.view(query.shape), by_keys.view(keys.shape)


def _empty_kept(keep: bool, *arguments: Tensor) -> list[Tensor]:
    """Room for what is kept of each argument, of no size without `keep`."""
    return [tensor.new_empty(tensor.shape if keep else 0) for tensor in arguments]


def _keep_write(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *arguments, ctx.path, ctx.kept = inputs
    weights, _, *kept = output
    ctx.save_for_backward(*(kept if ctx.kept else arguments), weights)
    ctx.mark_non_differentiable(*kept)
    ctx.set_materialize_grads(False)


def _differentiate_write(
    ctx: Any, by_weights: Tensor | None, by_increments: Tensor | None, *unused: None
) -> tuple[Tensor | None, ...]:
    # Taken once: checkpointing allows no more.
    saved = ctx.saved_tensors
    *_, values, weights = saved
    if by_weights is None:
        by_weights = torch.zeros_like(weights)
    if by_increments is None:
        by_increments = values.new_zeros(*weights.shape, values.shape[-1])
    return *write_backward(by_weights, by_increments, *saved, ctx.path, ctx.kept), None, None


def _keep_weights(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *arguments, ctx.path, ctx.kept = inputs
    weights, *kept = output
    ctx.save_for_backward(*(kept if ctx.kept else arguments), weights)
    ctx.mark_non_differentiable(*kept)
    ctx.set_materialize_grads(False)


def _differentiate_weights(ctx: Any, gradient: Tensor | None, *unused: None) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return None, None, None, None
    return *slot_weights_backward(gradient, *ctx.saved_tensors, ctx.path, ctx.kept), None, None


write.register_autograd(_differentiate_write, setup_context=_keep_write)
slot_weights.register_autograd(_differentiate_weights, setup_context=_keep_weights)
