"""Positive definite systems, solved by an operator whose FLOPs are counted: torch's counter knows no solves."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from seqbench_kernels.ridge_solves.flops import solve_flops


@torch.library.custom_op("seqbench::solve_symmetric", mutates_args=())
def solve_symmetric(system: Tensor, right: Tensor) -> Tensor:
    """The x with A x = b, by Cholesky; differentiable once.

    Args:
        system: (..., size, size), symmetric and positive definite; where one is not, x is no solution, and nothing is
            raised.
        right: (..., size).

    Returns:
        (..., size).
    """
    factor, _ = torch.linalg.cholesky_ex(system)
    return torch.cholesky_solve(right.unsqueeze(-1), factor).squeeze(-1)


@solve_symmetric.register_fake
def _(system: Tensor, right: Tensor) -> Tensor:
    return right.new_empty(right.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], output)


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
    system, solution = ctx.saved_tensors
    by_right = solve_symmetric(system, gradient)
    return -by_right.unsqueeze(-1) * solution.unsqueeze(-2), by_right


solve_symmetric.register_autograd(_differentiate, setup_context=_setup_context)
for _device in ("cpu", "cuda"):
    solve_symmetric.register_autocast(_device, torch.float32)


@register_flop_formula(torch.ops.seqbench.solve_symmetric)
def _formula(system: torch.Size, right: torch.Size, *_: Any, **__: Any) -> int:
    return right[:-1].numel() * solve_flops(right[-1], 0)
