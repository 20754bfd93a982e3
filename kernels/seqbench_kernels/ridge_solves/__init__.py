"""For every token the solution of a ridge regression's system over the keys so far, which fade."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from seqbench_kernels.arguments import computing_dtype, require_shapes
from seqbench_kernels.dispatch import REFERENCE, Operation, Path
from seqbench_kernels.ridge_solves.flops import backward_flops, forward_flops
from seqbench_kernels.ridge_solves.operators import ridge_solves_chunked
from seqbench_kernels.ridge_solves.reference import ridge_solves_reference

__all__ = [
    "OPERATION",
    "backward_flops",
    "forward_flops",
    "ridge_solves",
    "ridge_solves_chunked",
    "ridge_solves_path",
    "ridge_solves_reference",
]


def ridge_solves(
    query: Tensor,
    key: Tensor,
    log_decay: Tensor,
    strength: Tensor,
    ridge: Tensor | float,
    iterations: int = 0,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """x_t = (H_t + ridge)^(-1) q_t with H_t = exp(g_t) H_(t-1) + b_t k_t k_t^T; `ridge_solves_reference` defines it.

    Args:
        query: (batch, length, heads, size), length at least 1.
        key: of the same shape.
        log_decay: (batch, length, heads), logarithms, 0 or below, of what stays of the state.
        strength: (batch, length, heads), 0 or above. A token of strength 0 and log decay 0 leaves the state as it is.
        ridge: (heads, size), what is added to the diagonal, above 0; solved exactly. Or a number: it is that many times
            the Frobenius norm of the state, solved by `iterations` Chebyshev steps with an implicit gradient.
        iterations: of a ridge that is a number.
        initial_state: (batch, heads, size, size), the final state of the tokens before; None is zero.

    Returns:
        Solutions shaped like the queries and the final state (batch, heads, size, size), in fp64 when an argument is,
        else in fp32: half-precision arguments are widened, since errors of the state add up.

    Raises:
        ValueError: for shapes that do not fit each other, and a number as ridge without iterations.
        UnknownPathError: when the path that was asked for (seqbench_kernels.dispatch) cannot serve.
    """
    _check(query, key, log_decay, strength, ridge, iterations, initial_state)
    tensors = [tensor for tensor in (query, key, log_decay, strength, ridge, initial_state) if torch.is_tensor(tensor)]
    dtype = computing_dtype(*tensors)
    path = _PATHS[OPERATION.choose(key.device, dtype)]
    first = (tensor.to(dtype) for tensor in (query, key, log_decay, strength))
    fixed = ridge.to(dtype) if isinstance(ridge, Tensor) else ridge
    return path(*first, fixed, iterations, None if initial_state is None else initial_state.to(dtype))


def ridge_solves_path(device: torch.device | str) -> str:
    """Which implementation `ridge_solves` takes on a device in fp32, in words."""
    return _WORDS[OPERATION.expected(device)]


_CHUNKED = "cpu"
_PATHS: Mapping[str, Callable[..., tuple[Tensor, Tensor]]] = {
    _CHUNKED: ridge_solves_chunked,
    REFERENCE: ridge_solves_reference,
}
_WORDS = {
    _CHUNKED: "ridge solves by chunks of states, with torch's products and factorisations",
    REFERENCE: "ridge solves by their reference, one token at a time",
}


def _cases(device: torch.device) -> Mapping[str, Callable[[], tuple[Any, ...]]]:
    def case(batch: int, length: int, iterations: int) -> Callable[[], tuple[Any, ...]]:
        def build() -> tuple[Any, ...]:
            query, key = (torch.randn(batch, length, 4, 16, device=device) for _ in range(2))
            key = torch.nn.functional.normalize(key, dim=-1)
            log_decay = torch.nn.functional.logsigmoid(torch.randn(batch, length, 4, device=device))
            strength = torch.rand(batch, length, 4, device=device)
            tensors = tuple(tensor.requires_grad_() for tensor in (query, key, log_decay, strength))
            return *tensors, 0.02 if iterations else torch.ones(4, 16, device=device), iterations

        return build

    kinds = {0: "exact", 30: "30 Chebyshev steps"}
    return {
        f"{batch} x {length} tokens, 4 heads of 16, {words}": case(batch, length, iterations)
        for iterations, words in kinds.items()
        for batch, length in ((64, 40), (4, 512))
    }


OPERATION = Operation(
    "ridge_solves",
    ridge_solves,
    # The chunked path is written for CPU and serves other devices too.
    (Path(_CHUNKED), Path(REFERENCE, by_default=False)),
    _cases,
)


def _check(
    query: Tensor,
    key: Tensor,
    log_decay: Tensor,
    strength: Tensor,
    ridge: Tensor | float,
    iterations: int,
    initial_state: Tensor | None,
) -> None:
    if key.dim() != 4 or key.shape[1] == 0:
        raise ValueError(f"key must be (batch, length, heads, size) with at least one token, not {tuple(key.shape)}")
    if isinstance(ridge, Tensor) == (iterations > 0):
        raise ValueError("a ridge per channel is solved exactly, and a number as ridge by one iteration or more")
    batch, length, heads, size = key.shape
    require_shapes(
        "key",
        key,
        {
            "query": (query, (batch, length, heads, size)),
            "log_decay": (log_decay, (batch, length, heads)),
            "strength": (strength, (batch, length, heads)),
            "ridge": (ridge if isinstance(ridge, Tensor) else None, (heads, size)),
            "initial_state": (initial_state, (batch, heads, size, size)),
        },
    )
