"""What the backward pass of the memory read sums over its chunks of tokens."""

import torch
from torch import Tensor


class ParameterGradients:
    """Gradients of weight and bias, summed in fp32, or in fp64 for fp64 slots."""

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        """Of weight (2 R M, 2M) and bias (2 R M,); `dtype` is the one to sum in."""
        self._dtype = weight.dtype
        self._weight, self._bias = torch.empty_like(weight, dtype=dtype), torch.zeros_like(bias, dtype=dtype)
        self._started: set[tuple[int, int]] = set()

    def add(self, start: int, gradient: Tensor, inputs: Tensor) -> None:
        """Add what reaches rows of the weight from `start` on.

        `gradient` (tokens, rows of the weight) is that of their products with `inputs` (tokens, 2M).
        """
        stop = start + gradient.shape[1]
        self._bias[start:stop].add_(gradient.sum(dim=0, dtype=self._bias.dtype))
        sums = self._weight[start:stop]
        # Until a chunk has been added, the sums are fresh memory.
        started = (start, stop) in self._started
        self._started.add((start, stop))
        put_product(sums, gradient.t(), inputs.to(self._dtype), add=started)

    def result(self) -> tuple[Tensor, Tensor]:
        """The gradients of weight and bias, in the dtype of the parameters."""
        if not self._started:
            self._weight.zero_()
        return self._weight.to(self._dtype), self._bias.to(self._dtype)


def put_product(result: Tensor, left: Tensor, right: Tensor, add: bool = False) -> None:
    """Put left right into `result`, or add it; computed in the dtype of `right`, whatever that of the others."""
    left = left.to(right.dtype)
    # With beta 0 what was in `result` is ignored, NaN included.
    if right.dtype == result.dtype:
        torch.addmm(result, left, right, beta=int(add), out=result)
    elif add:
        result.add_(torch.mm(left, right))
    else:
        result.copy_(torch.mm(left, right))
