"""Padding made inert once, at the entrance of a model, instead of in every layer.

The real tokens of each row are moved to its front, the model runs as if padding could only follow, and the outputs are
moved back. Causality then keeps padding from influencing real tokens, and windows and positions count real tokens only.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowPacking:
    """Where the real tokens of each row are.

    Attributes:
        order: (batch, length) int64; order[b, t] is the place in the original row of the t-th packed token.
        lengths: (batch,) int64, number of real tokens.
        mask: (batch, length) bool in packed order, true for real tokens.
    """

    order: Tensor
    lengths: Tensor
    mask: Tensor

    def pack(self, values: Tensor) -> Tensor:
        """Move real tokens to the front of each row; values: (batch, length, ...)."""
        return _take(values, self.order)

    def unpack(self, values: Tensor) -> Tensor:
        """Undo `pack`; values: (batch, length, ...)."""
        return _take(values, self.order.argsort(dim=1))


def pack_rows(attention_mask: Tensor | None, length: int) -> RowPacking | None:
    """The packing for the last `length` columns of `attention_mask`, or None when they hold no padding.

    A compiled model packs whatever the mask holds: what it holds is known only as it runs.

    Args:
        attention_mask: (batch, at least length), non-zero for real tokens. It may cover tokens already in a cache, as
            `generate` passes it; only the last `length` columns speak of the present input.
        length: number of tokens of the present input.
    """
    if attention_mask is None:
        return None
    real = attention_mask[:, -length:] != 0
    if not torch.compiler.is_compiling() and bool(real.all()):
        return None
    order = (~real).to(torch.int8).argsort(dim=1, stable=True)
    return RowPacking(order=order, lengths=real.sum(dim=1), mask=real.gather(1, order))


def _take(values: Tensor, order: Tensor) -> Tensor:
    index = order.reshape(*order.shape, *(1,) * (values.dim() - 2)).expand_as(values)
    return values.gather(1, index)
