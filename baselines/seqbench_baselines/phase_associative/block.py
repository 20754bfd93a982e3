"""The block of both: the feed-forward layer first, and a learned factor on what each part adds."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from seqbench.mixers import Chunk, Handed, Mixer, MixerLayer, Tree
from seqbench_baselines.phase_associative.complex_layers import ComplexGatedUnit, ComplexNorm

# What a mixer's output is multiplied by at first; what a feed-forward layer's is, is not changed.
_FIRST_MIXER_SCALE = 0.1


class ScaledLayer(MixerLayer):
    """x + a feed_forward(norm x), then x + b mixer(norm x), with a and b learned."""

    def __init__(self, mixer: Mixer[Any], settings: Any) -> None:
        super().__init__(mixer, settings)
        self.mixer_scale = nn.Parameter(torch.empty(()))
        self.mlp_scale = nn.Parameter(torch.empty(())) if self._part(self.layout.feed_forward) is not None else None

    def initialise(self) -> None:
        """As published."""
        init.constant_(self.mixer_scale, _FIRST_MIXER_SCALE)
        if self.mlp_scale is not None:
            init.ones_(self.mlp_scale)

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree, Handed]:
        """As `MixerLayer.forward`."""
        if self.mlp_scale is not None:
            fed = self._part(self.layout.feed_forward)(self._part(self.layout.feed_forward_norm)(hidden))
            hidden = hidden + self.mlp_scale * fed
        added, state, handed = self.mix(self._part(self.layout.mixer_norm)(hidden), state, chunk)
        return hidden + self.mixer_scale * added, state, handed


class ComplexLayer(ScaledLayer):
    """The block with complex norms and a complex feed-forward layer, whose inner width is intermediate_size."""

    def __init__(self, mixer: Mixer[Any], settings: Any) -> None:
        super().__init__(mixer, settings)
        channels, names = settings.hidden_size // 2, self.layout
        self.add_module(names.mixer_norm, ComplexNorm(channels))
        if self._part(names.feed_forward) is not None:
            self.add_module(names.feed_forward_norm, ComplexNorm(channels))
            self.add_module(names.feed_forward, ComplexGatedUnit(channels, settings.intermediate_size))
