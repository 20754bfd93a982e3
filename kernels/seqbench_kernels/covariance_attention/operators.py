"""The blockwise form as torch operators: one node each way for torch.compile, FLOP counting and autocast."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from seqbench_kernels.covariance_attention.blocks import attention_backward, attention_forward
from seqbench_kernels.covariance_attention.flops import backward_flops, forward_flops


@torch.library.custom_op("seqbench::covariance_attention", mutates_args=())
def _attention(
    query: Tensor, probe: Tensor, key: Tensor, value: Tensor, window: int | None, prefix_valid: Tensor | None
) -> Tensor:
    return attention_forward(query, probe, key, value, window, prefix_valid)


@_attention.register_fake
def _(
    query: Tensor, probe: Tensor, key: Tensor, value: Tensor, window: int | None, prefix_valid: Tensor | None
) -> Tensor:
    return query.new_empty(query.shape)


@torch.library.custom_op("seqbench::covariance_attention_backward", mutates_args=())
def _attention_backward(
    gradient: Tensor,
    query: Tensor,
    probe: Tensor,
    key: Tensor,
    value: Tensor,
    window: int | None,
    prefix_valid: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return attention_backward(gradient, query, probe, key, value, window, prefix_valid)


@_attention_backward.register_fake
def _(
    gradient: Tensor,
    query: Tensor,
    probe: Tensor,
    key: Tensor,
    value: Tensor,
    window: int | None,
    prefix_valid: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    by_query, by_probe, by_key, by_value = (tensor.new_empty(tensor.shape) for tensor in (query, probe, key, value))
    return by_query, by_probe, by_key, by_value


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    query, probe, key, value, ctx.window, prefix_valid = inputs
    ctx.save_for_backward(query, probe, key, value, prefix_valid)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    query, probe, key, value, prefix_valid = ctx.saved_tensors
    return *_attention_backward(gradient, query, probe, key, value, ctx.window, prefix_valid), None, None


_attention.register_autograd(_differentiate, setup_context=_setup_context)
# Under autocast it stays in fp32, forward and backward.
for _device in ("cpu", "cuda"):
    _attention.register_autocast(_device, torch.float32)
    _attention_backward.register_autocast(_device, torch.float32)


@register_flop_formula(torch.ops.seqbench.covariance_attention)
def _forward_formula(
    query: Any, probe: Any, key: Any, value: Any, window: int | None, prefix_valid: Any, **_: Any
) -> int:
    return query[0] * forward_flops(query[2], key[2], query[1], query[3], window)


@register_flop_formula(torch.ops.seqbench.covariance_attention_backward)
def _backward_formula(
    gradient: Any, query: Any, probe: Any, key: Any, value: Any, window: int | None, prefix_valid: Any, **_: Any
) -> int:
    return query[0] * backward_flops(query[2], key[2], query[1], query[3], window)


def covariance_attention_blockwise(
    query: Tensor,
    probe: Tensor,
    key: Tensor,
    value: Tensor,
    window: int | None = None,
    prefix_valid: Tensor | None = None,
) -> Tensor:
    """As `covariance_attention`, arguments of one precision; any device. First derivatives only."""
    return _attention(query, probe, key, value, window, prefix_valid)
