"""The key half of the memory read on CPU: projection, scores, and their gradients, of a chunk of tokens at a time.

What is elementwise runs in place on short spans of the chunk, which stay in the cache of a core, and in few passes:
phi(q) - phi(k) with phi(x) = pi tanh(x) is 2 pi (sigmoid(2q) - sigmoid(2k)), and the factor 2 of the keys is part of
their projection. The backward pass needs no more of the keys than sigmoid(2k).
"""

import math

import torch
from torch import Tensor

from seqbench_kernels.memory_read.gradients import ParameterGradients, put_product

# Elements (tokens x slots x heads x angles) of a span for each thread: 512 KiB in fp32, so that the keys and the
# differences of a core's share fit into 1 MiB of second-level cache. Measured on 2 CPU cores: half of it is no faster
# at the 119M shape, and slower at the tiny one, where calls count.
_SPAN_ELEMENTS = 2**17


class Keys:
    """The key half of the parameters, and buffers that all chunks use.

    Of a chunk, `query` is (tokens, R, M) before phi, `slots` (tokens, N, 2M), `keys` (tokens, N, R M).
    """

    def __init__(self, size: int, query: Tensor, slots: Tensor, weight: Tensor, bias: Tensor) -> None:
        """For chunks of at most `size` tokens of `query` and `slots`."""
        _, self._heads, self._angles = query.shape
        count, width = slots.shape[1], bias.shape[0] // 2
        self._weight, self._bias = weight[:width], bias[:width]
        self._span = max(1, min(size, torch.get_num_threads() * _SPAN_ELEMENTS // max(1, count * width)))
        self._scores = slots.new_empty(size, count, self._heads)
        self._query = slots.new_empty(self._span, 1, self._heads, self._angles)
        self._query_gradient = torch.empty_like(self._query)
        self._difference = slots.new_empty(self._span, count, self._heads, self._angles)

    def project(self, slots: Tensor, keys: Tensor) -> None:
        """2k into `keys`."""
        rows, transposed = slots.flatten(0, 1).to(self._weight.dtype), self._weight.t()
        if rows.dtype == keys.dtype:
            torch.addmm(self._bias, rows, transposed, beta=2, alpha=2, out=keys.flatten(0, 1))
        else:
            torch.mul(torch.addmm(self._bias, rows, transposed).view(keys.shape), 2, out=keys)

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """Scores (tokens, N, R) from 2k in `keys`, which become sigmoid(2k)."""
        scores = self._scores[: query.shape[0]]
        for start in range(0, query.shape[0], self._span):
            span = slice(start, start + self._span)
            keys[span].sigmoid_()
            torch.sum(self._differences(query[span], keys[span]).cos_(), dim=-1, out=scores[span])
        return scores.mul_(1 / math.sqrt(self._angles))

    def backward(
        self, gradient: Tensor, query: Tensor, keys: Tensor, bounded: bool, query_gradient: Tensor, key_gradient: Tensor
    ) -> None:
        """Take the gradient of the scores, (tokens, N, R), to that of the query and of k.

        `keys` are sigmoid(2k) if `bounded`, else 2k; `key_gradient` may be the same tensor.
        """
        # The angle phi(k) = pi (2 sigmoid(2k) - 1) has the slope 4 pi sigmoid (1 - sigmoid).
        factors = (gradient * (4 * math.pi / math.sqrt(self._angles))).unsqueeze(-1)
        for start in range(0, query.shape[0], self._span):
            span = slice(start, start + self._span)
            if not bounded:
                keys[span].sigmoid_()
            by_difference = self._differences(query[span], keys[span]).sin_().mul_(factors[span])
            size = by_difference.shape[0]
            by_query = torch.sum(by_difference, dim=1, keepdim=True, out=self._query_gradient[:size])
            _sigmoid_backward(by_query, self._query[:size].div_(2 * math.pi), by_query)
            torch.mul(by_query.squeeze(1), -1, out=query_gradient[span])
            _sigmoid_backward(by_difference.flatten(2), keys[span], key_gradient[span])

    def _differences(self, query: Tensor, keys: Tensor) -> Tensor:
        """phi(q) - phi(k), (tokens, N, R, M), of a span from sigmoid(2k); 2 pi sigmoid(2q) stays in a buffer."""
        size = query.shape[0]
        turned = torch.mul(query.unsqueeze(1), 2, out=self._query[:size]).sigmoid_().mul_(2 * math.pi)
        by_head = keys.unflatten(-1, (self._heads, self._angles))
        return torch.sub(turned, by_head, alpha=2 * math.pi, out=self._difference[:size])

    def project_backward(
        self, gradient: Tensor, slots: Tensor, slots_gradient: Tensor, parameters: ParameterGradients
    ) -> None:
        """Add what the gradient of k means for the slots and the parameters."""
        rows = gradient.flatten(0, 1)
        put_product(slots_gradient.flatten(0, 1), rows, self._weight, add=True)
        parameters.add(0, rows, slots.flatten(0, 1))


def _sigmoid_backward(gradient: Tensor, output: Tensor, result: Tensor) -> None:
    """Put gradient x output x (1 - output) into `result`, which may be `gradient` or `output` itself."""
    torch.ops.aten.sigmoid_backward.grad_input(gradient, output, grad_input=result)
