"""Muon, with the matrices of one shape orthogonalised together.

The algorithm, its constants and its rounding are those of `torch.optim.Muon` (Jordan et al.,
https://kellerjordan.github.io/posts/muon/; rates after Liu et al., arXiv 2502.16982, section 2.2), which works
matrix by matrix: a model of many small ones spends its time on starting operations.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from seqbench.training.matrices import Matrix

# The quintic iteration's coefficients and number of steps, from Jordan's page.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5
_EPSILON = 1e-7
# Entries orthogonalised at once: 32 MiB of bfloat16 for each of the three tensors that are alive.
_LARGEST_STACK = 2**24


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal, matrix by matrix; for linear maps.

    Args:
        matrices: what to train; each part of a fused parameter is made orthogonal by itself.
        lr: peak learning rate. An update is scaled to AdamW's typical size, so that one rate serves both optimizers.
        weight_decay: decoupled, times the rate.
        momentum: decay of the running mean of gradients, with Nesterov's look ahead.
    """

    def __init__(self, matrices: Sequence[Matrix], lr: float, weight_decay: float, momentum: float) -> None:
        self._matrices = tuple(matrices)
        parameters = [matrix.parameter for matrix in matrices]
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Change every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("this optimizer takes no closure")
        [group] = self.param_groups
        gradients = {matrix: matrix.parameter.grad for matrix in self._matrices if matrix.parameter.grad is not None}
        if not gradients:
            return
        buffers = {matrix: self._buffer(matrix.parameter) for matrix in gradients}
        torch._foreach_lerp_(list(buffers.values()), list(gradients.values()), 1 - group["momentum"])
        torch._foreach_mul_([matrix.parameter for matrix in gradients], 1 - group["lr"] * group["weight_decay"])
        parts = [
            _Part(*views)
            for matrix, gradient in gradients.items()
            for views in zip(*map(matrix.views, (matrix.parameter, gradient, buffers[matrix])), strict=True)
        ]
        for stack in _stacks(parts):
            ahead = torch._foreach_lerp(
                [part.gradient for part in stack], [part.buffer for part in stack], group["momentum"]
            )
            scale = -group["lr"] * 0.2 * max(ahead[0].shape) ** 0.5
            for part, direction in zip(stack, _orthogonal(torch.stack(ahead)).unbind(), strict=True):
                part.weight.add_(direction, alpha=scale)

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


class _Part:
    """Views (rows, columns) of one linear map, transposed where it has more rows than columns."""

    def __init__(self, weight: Tensor, gradient: Tensor, buffer: Tensor) -> None:
        views = (weight, gradient, buffer)
        if weight.shape[0] > weight.shape[1]:
            views = (weight.t(), gradient.t(), buffer.t())
        self.weight, self.gradient, self.buffer = views


def _stacks(parts: Sequence[_Part]) -> Iterator[list[_Part]]:
    """The parts of one shape together, as many as one stack may have."""
    found: dict[torch.Size, list[_Part]] = defaultdict(list)
    for part in parts:
        found[part.weight.shape].append(part)
    for shape, alike in found.items():
        count = max(1, _LARGEST_STACK // shape.numel())
        for start in range(0, len(alike), count):
            yield alike[start : start + count]


def _orthogonal(updates: Tensor) -> Tensor:
    """Nearly the orthogonal factor of each matrix of (count, rows, columns), rows <= columns, in bfloat16."""
    a, b, c = _COEFFICIENTS
    found = updates.bfloat16()
    # By the Frobenius norm, so that no singular value is above 1, where the iteration would diverge.
    found /= torch.linalg.vector_norm(found, dim=(-2, -1), keepdim=True).clamp(min=_EPSILON)
    for _ in range(_STEPS):
        gram = found @ found.mT
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found
