"""The norms of a mixer decoder, by its settings and by the width of its residual stream."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from seqbench.nn import RMSNorm


def norm_of(settings: Any, wide_residual: bool) -> nn.Module:
    """The norm that `settings` name, before a mixer, a feed-forward layer or the head.

    Of a wide residual stream (`MixerLayer.wide_residual`) its result has the dtype of its weight, which is that of the
    layer behind it.
    """
    kinds = (_NarrowingLayerNorm, _NarrowingRMSNorm) if wide_residual else (nn.LayerNorm, RMSNorm)
    return kinds[settings.norm == "rms"](settings.hidden_size, settings.norm_epsilon)


class _NarrowingRMSNorm(RMSNorm):
    def forward(self, values: Tensor) -> Tensor:
        return super().forward(values).to(self.weight.dtype)


class _NarrowingLayerNorm(nn.LayerNorm):
    def forward(self, values: Tensor) -> Tensor:
        weight, bias = self.weight.to(values.dtype), self.bias.to(values.dtype)
        return F.layer_norm(values, self.normalized_shape, weight, bias, self.eps).to(self.weight.dtype)
