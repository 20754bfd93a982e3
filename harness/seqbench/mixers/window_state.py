"""The state of a mixer decoder whose layers attend over a window, which steps of one token change in place."""

from dataclasses import dataclass

import torch
from torch import Tensor

from seqbench.mixers.state import MixerState, Tree, map_tensors
from seqbench.nn import KeyValueRing


@dataclass
class WindowState(MixerState, KeyValueRing):
    """The trees of layers that carry (keys, values), each (batch, heads, window - 1, head_dim), the newest last.

    For plugins that give `seqbench.nn.DecodingSteps` as their steps. Only these leave the places turned; the next chunk
    turns them back.
    """

    window: int | None = None
    valid: Tensor | None = None
    oldest: int = 0

    def held(self, layer_index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer."""
        return self.layers[layer_index]

    def reorder_cache(self, beam_index: Tensor) -> None:
        """Keep the rows `beam_index`, in that order (beam search)."""
        super().reorder_cache(beam_index)
        if self.valid is not None:
            self.valid = self.valid.index_select(0, beam_index)

    def open(self, depth: int) -> list[Tree]:
        """What each layer begins the next chunk with."""
        if self.oldest:
            self.layers = [map_tensors(lambda held: held.roll(-self.oldest, dims=2), tree) for tree in self.layers]
            self.oldest = 0
        return super().open(depth)

    def store(self, layers: list[Tree], added: Tensor) -> None:
        """Take what the layers carry."""
        super().store(layers, added)
        assert self.window is not None and self.seen is not None
        places = self.window - 1
        self.valid = torch.arange(places, device=added.device) >= places - self.seen.unsqueeze(1)
