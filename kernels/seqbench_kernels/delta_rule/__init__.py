"""The gated delta rule: a matrix memory in which each token corrects what its key recalls, by chunks of tokens."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from seqbench_kernels.arguments import computing_dtype, require_shapes
from seqbench_kernels.delta_rule.flops import backward_flops, forward_flops
from seqbench_kernels.delta_rule.operators import delta_rule_chunked
from seqbench_kernels.delta_rule.reference import delta_rule_reference
from seqbench_kernels.dispatch import REFERENCE, Operation, Path

__all__ = [
    "OPERATION",
    "backward_flops",
    "delta_rule",
    "delta_rule_chunked",
    "delta_rule_path",
    "delta_rule_reference",
    "forward_flops",
]


def delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    strength: Tensor,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Writes and reads of a matrix memory per row and head; `delta_rule_reference` defines it.

    Stable where keys have length 1 or less and strengths lie in [0, 2].

    Args:
        query: (batch, length, heads, key_size), length at least 1.
        key: (batch, length, heads, key_size).
        value: (batch, length, heads, value_size).
        log_decay: logarithms, 0 or below, of what stays of the state before each write, (batch, length, heads) or, per
            channel of the keys, (batch, length, heads, key_size); None where all stays.
        strength: (batch, length, heads). A token of strength 0 and log decay 0 leaves the state as it is.
        initial_state: (batch, heads, key_size, value_size), the final state of the tokens before; None is zero.

    Returns:
        Outputs (batch, length, heads, value_size) and the final state (batch, heads, key_size, value_size), in fp64
        when an argument is, else in fp32: half-precision arguments are widened, since errors of the state add up.

    Raises:
        ValueError: for shapes that do not fit each other.
        UnknownPathError: when the path that was asked for (seqbench_kernels.dispatch) cannot serve.
    """
    _check_shapes(query, key, value, log_decay, strength, initial_state)
    arguments = (query, key, value, log_decay, strength, initial_state)
    dtype = computing_dtype(*arguments)
    path = _PATHS[OPERATION.choose(key.device, dtype)]
    return path(*(None if tensor is None else tensor.to(dtype) for tensor in arguments))


def delta_rule_path(device: torch.device | str) -> str:
    """Which implementation `delta_rule` takes on a device in fp32, in words."""
    return _WORDS[OPERATION.expected(device)]


_CHUNKED = "cpu"
_PATHS: Mapping[str, Callable[..., tuple[Tensor, Tensor]]] = {
    _CHUNKED: delta_rule_chunked,
    REFERENCE: delta_rule_reference,
}
_WORDS = {
    _CHUNKED: "delta rule by matrix products over chunks",
    REFERENCE: "delta rule by its reference, one token at a time",
}


def _cases(device: torch.device) -> Mapping[str, Callable[[], tuple[Any, ...]]]:
    def case(batch: int, length: int, heads: int, size: int, decay: str) -> Callable[[], tuple[Any, ...]]:
        def build() -> tuple[Any, ...]:
            query, key, value = (torch.randn(batch, length, heads, size, device=device) for _ in range(3))
            key = torch.nn.functional.normalize(key, dim=-1)
            shape = {"channel": (batch, length, heads, size), "head": (batch, length, heads)}.get(decay)
            # First values of the published gates: half a memory is lost in a token to some hundred tokens.
            log_decay = None if shape is None else -torch.rand(shape, device=device).pow(4)
            strength = torch.rand(batch, length, heads, device=device)
            tensors = (query, key, value, log_decay, strength)
            return tuple(None if tensor is None else tensor.requires_grad_() for tensor in tensors)

        return build

    sizes = [(64, 40, 3, 16, "head"), (4, 512, 3, 16, "head"), (4, 512, 3, 16, "channel"), (1, 512, 6, 128, "none")]
    return {f"{b} x {t} tokens, {h} heads of {d}, decay per {g}": case(b, t, h, d, g) for b, t, h, d, g in sizes}


OPERATION = Operation(
    "delta_rule",
    delta_rule,
    # The chunked path is written for CPU and serves other devices too.
    (Path(_CHUNKED), Path(REFERENCE, by_default=False)),
    _cases,
)


def _check_shapes(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor | None,
    strength: Tensor,
    initial_state: Tensor | None,
) -> None:
    if key.dim() != 4 or value.dim() != 4 or key.shape[1] == 0:
        raise ValueError(
            "key and value must be (batch, length, heads, size) with at least one token, not"
            f" {tuple(key.shape)} and {tuple(value.shape)}"
        )
    batch, length, heads, key_size = key.shape
    decays = (batch, length, heads) if log_decay is None or log_decay.dim() == 3 else (batch, length, heads, key_size)
    require_shapes(
        "key",
        key,
        {
            "query": (query, (batch, length, heads, key_size)),
            "value": (value, (batch, length, heads, value.shape[-1])),
            "log_decay": (log_decay, decays),
            "strength": (strength, (batch, length, heads)),
            "initial_state": (initial_state, (batch, heads, key_size, value.shape[-1])),
        },
    )
