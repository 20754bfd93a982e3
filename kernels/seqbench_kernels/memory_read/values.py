"""The value half of the memory read on CPU, of a chunk of tokens at a time, in either order.

Of a chunk, `slots` are (tokens, N, 2M), `weights` those of the slots, (tokens, R, N), and `values` (tokens, R M).
"""

import torch
from torch import Tensor

from seqbench_kernels.memory_read.gradients import ParameterGradients, put_product


class MixThenProject:
    """Each head mixes the slots and projects the mix: R products of (2M, M) a token instead of N R of them.

    The same as projecting first, since the projection is linear and the weights of a softmax sum to one.
    """

    def __init__(self, size: int, query: Tensor, slots: Tensor, weight: Tensor, bias: Tensor) -> None:
        """For chunks of at most `size` tokens."""
        _, heads, angles = query.shape
        self._start = heads * angles
        self._columns = [slice(head * angles, (head + 1) * angles) for head in range(heads)]
        self._weight, self._bias = weight[self._start :], bias[self._start :]
        self._mixed = slots.new_empty(size, heads, slots.shape[2])
        self._gradient = weight.new_empty(size, heads, slots.shape[2])

    def forward(self, slots: Tensor, weights: Tensor, values: Tensor) -> None:
        """Fill `values`."""
        mixed = self._mix(slots, weights)
        for head, part in enumerate(self._columns):
            torch.addmm(self._bias[part], mixed[:, head], self._weight[part].t(), out=values[:, part])

    def backward(
        self, gradient: Tensor, slots: Tensor, weights: Tensor, slots_gradient: Tensor, parameters: ParameterGradients
    ) -> Tensor:
        """Fill `slots_gradient`, add to the parameters', and return the gradient of the weights, (tokens, R, N)."""
        mixed, by_mixed = self._mix(slots, weights), self._gradient[: slots.shape[0]]
        for head, part in enumerate(self._columns):
            parameters.add(self._start + part.start, gradient[:, part], mixed[:, head])
            put_product(by_mixed[:, head], gradient[:, part], self._weight[part])
        by_mixed = by_mixed.to(slots.dtype)
        torch.bmm(weights.transpose(1, 2), by_mixed, out=slots_gradient)
        return torch.bmm(by_mixed, slots.transpose(1, 2))

    def _mix(self, slots: Tensor, weights: Tensor) -> Tensor:
        """(tokens, R, 2M) in the dtype of the parameters."""
        return torch.bmm(weights, slots, out=self._mixed[: slots.shape[0]]).to(self._weight.dtype)


class ProjectThenMix:
    """All slots are projected, as the definition has it: one long product instead of a small one per token and head."""

    def __init__(self, size: int, query: Tensor, slots: Tensor, weight: Tensor, bias: Tensor) -> None:
        """For chunks of at most `size` tokens."""
        _, heads, angles = query.shape
        self._start = heads * angles
        self._weight, self._bias = weight[self._start :], bias[self._start :]
        self._projected = weight.new_empty(size * slots.shape[1], self._start)
        self._weighted = slots.new_empty(size, slots.shape[1], heads, angles)

    def forward(self, slots: Tensor, weights: Tensor, values: Tensor) -> None:
        """Fill `values`."""
        projected, weighted = self._project(slots), self._weighted[: slots.shape[0]]
        torch.mul(projected, weights.transpose(1, 2).unsqueeze(-1), out=weighted)
        values.copy_(weighted.sum(dim=1).flatten(1))

    def backward(
        self, gradient: Tensor, slots: Tensor, weights: Tensor, slots_gradient: Tensor, parameters: ParameterGradients
    ) -> Tensor:
        """Fill `slots_gradient`, add to the parameters', and return the gradient of the weights, (tokens, R, N)."""
        projected, weighted = self._project(slots), self._weighted[: slots.shape[0]]
        by_value = gradient.to(slots.dtype).view(-1, 1, *weighted.shape[2:])
        by_weights = torch.mul(projected, by_value, out=weighted).sum(dim=-1).transpose(1, 2)
        rows = torch.mul(by_value, weights.transpose(1, 2).unsqueeze(-1), out=weighted).view(-1, self._start)
        put_product(slots_gradient.flatten(0, 1), rows, self._weight)
        parameters.add(self._start, rows, slots.flatten(0, 1))
        return by_weights

    def _project(self, slots: Tensor) -> Tensor:
        """(tokens, N, R, M) in the dtype of the parameters."""
        rows = slots.flatten(0, 1).to(self._weight.dtype)
        projected = torch.addmm(self._bias, rows, self._weight.t(), out=self._projected[: rows.shape[0]])
        return projected.view(*slots.shape[:2], *self._weighted.shape[2:])
