"""Linear attention whose state decays: not, per head, per channel of the key, real or complex."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from seqbench_kernels.arguments import require_shapes
from seqbench_kernels.decayed_linear_attention.flops import backward_flops, forward_flops
from seqbench_kernels.decayed_linear_attention.operators import decayed_linear_attention_chunked
from seqbench_kernels.decayed_linear_attention.reference import decayed_linear_attention_reference
from seqbench_kernels.dispatch import REFERENCE, Operation, Path

__all__ = [
    "OPERATION",
    "backward_flops",
    "decayed_linear_attention",
    "decayed_linear_attention_chunked",
    "decayed_linear_attention_path",
    "decayed_linear_attention_reference",
    "forward_flops",
]


def decayed_linear_attention(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None = None, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """S_t = diag(exp(log_decay_t)) S_(t-1) + conj(k_t) v_t^T, o_t = S_t^T q_t; the reference defines it.

    Nothing is normalised or scaled, and a token reads what it has just written. A token with a log decay of 0 and a key
    of 0 leaves the state as it is: so rows that end early are filled.

    Args:
        q: (batch, length, heads, key_size) queries, length at least 1; real, or complex with k and v.
        k: keys of the same shape.
        v: (batch, length, heads, value_size) values.
        log_decay: real logarithms, finite: (batch, length, heads) for one decay a head, with a last axis of key_size
            for one a channel of the key; None where nothing decays.
        initial_state: (batch, heads, key_size, value_size), the final state of the tokens before; None is zero.

    Returns:
        o (batch, length, heads, value_size) and the final state, shaped like the initial one, in fp64 precision when an
        argument is, else in that of fp32: half-precision arguments are widened, since errors of the state add up.

    Raises:
        ValueError: for shapes that do not fit each other.
        UnknownPathError: when the path that was asked for (seqbench_kernels.dispatch) cannot serve.
    """
    _check_shapes(q, k, v, log_decay, initial_state)
    arguments = [tensor for tensor in (q, k, v, log_decay, initial_state) if tensor is not None]
    is_double = any(tensor.dtype in (torch.float64, torch.complex128) for tensor in arguments)
    real = torch.float64 if is_double else torch.float32
    # Not `real.to_complex()`, which torch.compile cannot trace.
    complex_of_that = torch.complex128 if is_double else torch.complex64
    dtype = complex_of_that if any(tensor.is_complex() for tensor in arguments) else real
    q, k, v = (tensor.to(dtype) for tensor in (q, k, v))
    log_decay = None if log_decay is None else log_decay.to(real)
    initial_state = None if initial_state is None else initial_state.to(dtype)
    return _PATHS[OPERATION.choose(q.device, real)](q, k, v, log_decay, initial_state)


def decayed_linear_attention_path(device: torch.device | str) -> str:
    """Which implementation `decayed_linear_attention` takes on a device in fp32, in words."""
    return _WORDS[OPERATION.expected(device)]


_CHUNKED = "cpu"
_PATHS = {_CHUNKED: decayed_linear_attention_chunked, REFERENCE: decayed_linear_attention_reference}
_WORDS = {
    _CHUNKED: "chunked linear attention by torch's matrix products",
    REFERENCE: "linear attention by its reference, one token at a time",
}


def _cases(device: torch.device) -> Mapping[str, Callable[[], tuple[Any, ...]]]:
    def case(batch: int, length: int, decay: str) -> Callable[[], tuple[Any, ...]]:
        def build() -> tuple[Any, ...]:
            dtype = torch.complex64 if decay == "complex" else torch.float32
            q, k, v = (torch.randn(batch, length, 4, 16, dtype=dtype, device=device) for _ in range(3))
            shape = (batch, length, 4, 16) if decay == "channel" else (batch, length, 4)
            # GLA's gates as they begin: the logarithm of a sigmoid over 16.
            logs = torch.nn.functional.logsigmoid(torch.randn(shape, device=device)) / 16
            return tuple(tensor.requires_grad_() for tensor in (q, k, v, logs))

        return build

    kinds = {"head": "decay per head", "channel": "decay per channel", "complex": "complex"}
    return {
        f"{batch} x {length} tokens, 4 heads of 16, {words}": case(batch, length, kind)
        for kind, words in kinds.items()
        for batch, length in ((64, 40), (4, 512))
    }


OPERATION = Operation(
    "decayed_linear_attention",
    decayed_linear_attention,
    # The chunked path is written for CPU and serves other devices too.
    (Path(_CHUNKED), Path(REFERENCE, by_default=False)),
    _cases,
)


def _check_shapes(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, initial_state: Tensor | None) -> None:
    if q.dim() != 4 or v.dim() != 4 or q.shape[1] == 0:
        raise ValueError(
            "q must be (batch, length, heads, key_size) with at least one token and v (batch, length, heads,"
            f" value_size), not {tuple(q.shape)} and {tuple(v.shape)}"
        )
    batch, length, heads, key_size = q.shape
    per_channel = log_decay is not None and log_decay.dim() == 4
    require_shapes(
        "q",
        q,
        {
            "k": (k, (batch, length, heads, key_size)),
            "v": (v, (batch, length, heads, v.shape[3])),
            "log_decay": (log_decay, (batch, length, heads, key_size) if per_channel else (batch, length, heads)),
            "initial_state": (initial_state, (batch, heads, key_size, v.shape[3])),
        },
    )
