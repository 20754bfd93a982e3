"""Softmax attention less a covariance of values with what a second query sees in the keys."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from seqbench_kernels.arguments import computing_dtype, require_shapes
from seqbench_kernels.covariance_attention.flops import backward_flops, forward_flops
from seqbench_kernels.covariance_attention.operators import covariance_attention_blockwise
from seqbench_kernels.covariance_attention.reference import covariance_attention_reference
from seqbench_kernels.dispatch import REFERENCE, Operation, Path

__all__ = [
    "OPERATION",
    "backward_flops",
    "covariance_attention",
    "covariance_attention_blockwise",
    "covariance_attention_path",
    "covariance_attention_reference",
    "forward_flops",
]


def covariance_attention(
    query: Tensor,
    probe: Tensor,
    key: Tensor,
    value: Tensor,
    window: int | None = None,
    prefix_valid: Tensor | None = None,
) -> Tensor:
    """Causal attention by `query`, less the covariance under its weights of values with `probe` times key.

    `covariance_attention_reference` defines it. A probe of zeros is softmax attention.

    Args:
        query: (batch, heads, length, size); scores are divided by the root of the size.
        probe: of the same shape; its products with keys are not scaled.
        key: (batch, key heads, total, size), whose last `length` places are the queries' own. The key heads divide the
            heads: query head j uses key head j // (heads / key heads).
        value: of the shape of the keys.
        window: how many places a query sees, its own included; None for all earlier ones.
        prefix_valid: (batch, total - length) bool, which earlier places hold a token; None if all do.

    Returns:
        (batch, heads, length, size), in fp64 when an argument is, else in fp32.

    Raises:
        ValueError: for shapes that do not fit each other.
        UnknownPathError: when the path that was asked for (seqbench_kernels.dispatch) cannot serve.
    """
    _check_shapes(query, probe, key, value, prefix_valid)
    tensors = (query, probe, key, value)
    dtype = computing_dtype(*tensors)
    path = _PATHS[OPERATION.choose(key.device, dtype)]
    return path(*(tensor.to(dtype) for tensor in tensors), window, prefix_valid)


def covariance_attention_path(device: torch.device | str) -> str:
    """Which implementation `covariance_attention` takes on a device in fp32, in words."""
    return _WORDS[OPERATION.expected(device)]


_BLOCKWISE = "cpu"
_PATHS: Mapping[str, Callable[..., Tensor]] = {
    _BLOCKWISE: covariance_attention_blockwise,
    REFERENCE: covariance_attention_reference,
}
_WORDS = {
    _BLOCKWISE: "covariance attention by blocks of torch's matrix products",
    REFERENCE: "covariance attention by its reference, all scores at once",
}


def _cases(device: torch.device) -> Mapping[str, Callable[[], tuple[Any, ...]]]:
    def case(batch: int, length: int) -> Callable[[], tuple[Any, ...]]:
        def build() -> tuple[Any, ...]:
            return tuple(torch.randn(batch, 2, length, 32, device=device, requires_grad=True) for _ in range(4))

        return build

    return {f"{batch} x {length} tokens, 2 heads of 32": case(batch, length) for batch, length in ((64, 40), (4, 512))}


OPERATION = Operation(
    "covariance_attention",
    covariance_attention,
    # The blockwise path is written for CPU and serves other devices too.
    (Path(_BLOCKWISE), Path(REFERENCE, by_default=False)),
    _cases,
)


def _check_shapes(query: Tensor, probe: Tensor, key: Tensor, value: Tensor, prefix_valid: Tensor | None) -> None:
    if query.dim() != 4 or key.dim() != 4 or query.shape[1] % key.shape[1] or query.shape[2] > key.shape[2]:
        raise ValueError(
            "query must be (batch, heads, length, size) and key (batch, key heads, total, size) with key heads that"
            f" divide the heads and at least `length` places, not {tuple(query.shape)} and {tuple(key.shape)}"
        )
    (batch, _, length, size), (key_heads, total) = query.shape, key.shape[1:3]
    require_shapes(
        "query",
        query,
        {
            "probe": (probe, tuple(query.shape)),
            "key": (key, (batch, key_heads, total, size)),
            "value": (value, (batch, key_heads, total, size)),
            "prefix_valid": (prefix_valid, (batch, total - length)),
        },
    )
