"""The chunked form as torch operators: one node each way for torch.compile, FLOP counting and autocast."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from seqbench_kernels.ridge_solves.chunks import solves_backward, solves_forward
from seqbench_kernels.ridge_solves.flops import CHUNK, backward_flops, forward_flops


@torch.library.custom_op("seqbench::ridge_solves", mutates_args=())
def _solves(
    query: Tensor,
    key: Tensor,
    log_decay: Tensor,
    strength: Tensor,
    ridge: Tensor | None,
    relative_ridge: float,
    iterations: int,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    return solves_forward(query, key, log_decay, strength, ridge, relative_ridge, iterations, initial_state)


@_solves.register_fake
def _(
    query: Tensor,
    key: Tensor,
    log_decay: Tensor,
    strength: Tensor,
    ridge: Tensor | None,
    relative_ridge: float,
    iterations: int,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, heads, size = key.shape
    chunks = (length + CHUNK - 1) // CHUNK
    state = key.new_empty(batch, heads, size, size)
    return key.new_empty(key.shape), state, key.new_empty(batch * heads, chunks, size, size)


@torch.library.custom_op("seqbench::ridge_solves_backward", mutates_args=())
def _solves_backward(
    gradient: Tensor,
    state_gradient: Tensor | None,
    solution: Tensor,
    key: Tensor,
    log_decay: Tensor,
    strength: Tensor,
    ridge: Tensor | None,
    relative_ridge: float,
    iterations: int,
    starts: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return solves_backward(
        gradient, state_gradient, solution, key, log_decay, strength, ridge, relative_ridge, iterations, starts
    )


@_solves_backward.register_fake
def _(
    gradient: Tensor,
    state_gradient: Tensor | None,
    solution: Tensor,
    key: Tensor,
    log_decay: Tensor,
    strength: Tensor,
    ridge: Tensor | None,
    relative_ridge: float,
    iterations: int,
    starts: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, _, heads, size = key.shape
    by_ridge = key.new_empty(0 if ridge is None else ridge.shape)
    by_query, by_key = (key.new_empty(key.shape) for _ in range(2))
    by_log, by_strength = (key.new_empty(strength.shape) for _ in range(2))
    return by_query, by_key, by_log, by_strength, by_ridge, key.new_empty(batch, heads, size, size)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, key, log_decay, strength, ridge, ctx.relative_ridge, ctx.iterations, initial_state = inputs
    solution, _, starts = output
    ctx.save_for_backward(solution, key, log_decay, strength, ridge, starts)
    ctx.has_initial_state = initial_state is not None
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, gradient: Tensor | None, state_gradient: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, ...]:
    solution, key, log_decay, strength, ridge, starts = ctx.saved_tensors
    if gradient is None:
        gradient = torch.zeros_like(solution)
    *gradients, by_ridge, by_initial = _solves_backward(
        gradient,
        state_gradient,
        solution,
        key,
        log_decay,
        strength,
        ridge,
        ctx.relative_ridge,
        ctx.iterations,
        starts,
    )
    by_initial = by_initial if ctx.has_initial_state else None
    return *gradients, None if ridge is None else by_ridge, None, None, by_initial


_solves.register_autograd(_differentiate, setup_context=_setup_context)
# Under autocast it stays in fp32, forward and backward.
for _device in ("cpu", "cuda"):
    _solves.register_autocast(_device, torch.float32)
    _solves_backward.register_autocast(_device, torch.float32)


@register_flop_formula(torch.ops.seqbench.ridge_solves)
def _forward_formula(
    query: Any, key: Any, log_decay: Any, strength: Any, ridge: Any, relative: Any, iterations: int, *_: Any, **__: Any
) -> int:
    return key[0] * forward_flops(key[1], key[2], key[3], iterations)


@register_flop_formula(torch.ops.seqbench.ridge_solves_backward)
def _backward_formula(gradient: Any, state_gradient: Any, solution: Any, key: Any, *rest: Any, **_: Any) -> int:
    return key[0] * backward_flops(key[1], key[2], key[3], rest[4])


def ridge_solves_chunked(
    query: Tensor,
    key: Tensor,
    log_decay: Tensor,
    strength: Tensor,
    ridge: Tensor | float,
    iterations: int = 0,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `ridge_solves`, arguments of one precision; any device. First derivatives only."""
    fixed, relative = (ridge, 0.0) if isinstance(ridge, Tensor) else (None, ridge)
    solution, state, _ = _solves(query, key, log_decay, strength, fixed, relative, iterations, initial_state)
    return solution, state
