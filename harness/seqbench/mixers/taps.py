"""A convolution of each channel by its own few taps, as sums of shifted products with a hand-written gradient.

It reads (batch, length, channels) as it lies in memory, where torch's grouped convolution needs channels first. torch's
FLOP counter counts a grouped convolution and does not count these elementwise products.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def causal_taps(values: Tensor, before: Tensor | None, taps: Tensor, bias: Tensor | None = None) -> Tensor:
    """A causal convolution of each channel by its own few taps; `causal_taps_reference` defines it.

    Args:
        values: (batch, length, channels).
        before: (batch, number of taps - 1, channels), the inputs before them, newest last; None for zeros.
        taps: (channels, number of taps), the one of the newest input last.
        bias: (channels,), added to every output; None for zeros.

    Returns:
        (batch, length, channels), in the widest dtype of values and taps.
    """
    extended, taps, bias = _prepare(values, before, taps, bias)
    if values.shape[1] == 1:
        # One token is one sum over its window: fewer calls than shifts, which is what decoding takes its time for.
        return (extended * taps.t()).sum(dim=1, keepdim=True).add_(bias)
    return _ShiftedProducts.apply(extended, taps, bias)


def causal_taps_reference(values: Tensor, before: Tensor | None, taps: Tensor, bias: Tensor | None = None) -> Tensor:
    """The definition: output t is the sum over k of taps[:, k] x input t - (number of taps - 1) + k, and the bias."""
    extended, taps, bias = _prepare(values, before, taps, bias)
    length = values.shape[1]
    products = (extended[:, tap : tap + length] * taps[:, tap] for tap in range(taps.shape[1]))
    return sum(products, bias.expand(values.shape))


def _prepare(values: Tensor, before: Tensor | None, taps: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """All inputs in one, taps and bias, in one dtype."""
    dtype = torch.promote_types(values.dtype, taps.dtype)
    values, taps = values.to(dtype), taps.to(dtype)
    bias = taps.new_zeros(taps.shape[0]) if bias is None else bias.to(dtype)
    if before is None:
        return F.pad(values, (0, 0, taps.shape[1] - 1, 0)), taps, bias
    return torch.cat((before.to(dtype), values), dim=1), taps, bias


class _ShiftedProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, extended: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(extended, taps)
        by_tap = taps.t().contiguous()
        length = extended.shape[1] - len(by_tap) + 1
        outputs = torch.addcmul(bias, extended[:, :length], by_tap[0])
        for tap in range(1, len(by_tap)):
            outputs.addcmul_(extended[:, tap : tap + length], by_tap[tap])
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        extended, taps = ctx.saved_tensors
        by_tap, gradient = taps.t().contiguous(), gradients[0]
        length = gradient.shape[1]
        extended_gradient = torch.zeros_like(extended)
        taps_gradient = []
        for tap in range(len(by_tap)):
            extended_gradient[:, tap : tap + length].addcmul_(gradient, by_tap[tap])
            taps_gradient.append((gradient * extended[:, tap : tap + length]).sum(dim=(0, 1)))
        return extended_gradient, torch.stack(taps_gradient, dim=1), gradient.sum(dim=(0, 1))
