"""The plugin `rwkv7`."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from seqbench.contracts import Classification, Flops
from seqbench.mixers import Chunk, Handed, Layout, Mixer, MixerLayer, MixerPlugin, Tree
from seqbench_baselines.rwkv7.time_mix import TimeMix, newest_of, shifted


class ChannelMix(nn.Module):
    """value(relu(key u)^2), u a mixture of a token and the one before it."""

    def __init__(self, hidden_size: int, inner: int, depth: float) -> None:
        """`depth` is that of the layer over the number of layers, from 0."""
        super().__init__()
        self.depth = depth
        self.x_k = nn.Parameter(torch.empty(1, 1, hidden_size))
        self.key, self.value = nn.Linear(hidden_size, inner, bias=False), nn.Linear(inner, hidden_size, bias=False)

    def initialise(self) -> None:
        """As in the authors' code, by channel and depth; of the keys our reading, as queries begin."""
        size = self.x_k.shape[-1]
        channel = torch.arange(size, dtype=torch.float64) / size
        init.copy_(self.x_k, (1 - channel ** (1 - self.depth) ** 4)[None, None])
        init.uniform_(self.key.weight, -0.5 / size**0.5, 0.5 / size**0.5)
        init.zeros_(self.value.weight)

    def forward(self, hidden: Tensor, newest: Tensor | None) -> Tensor:
        """Map (batch, length, hidden_size) to the same shape."""
        mixed = hidden + (shifted(hidden, newest) - hidden) * self.x_k
        return self.value(self.key(mixed).relu().square())


class RWKV7Layer(MixerLayer):
    """Time mixing and channel mixing, each with its norm; both carry the newest input on."""

    layout = Layout(mixer="att", mixer_norm="ln1", feed_forward="ffn", feed_forward_norm="ln2")

    def __init__(self, mixer: Mixer[Any], settings: Any) -> None:
        super().__init__(mixer, settings)
        if self._part("ffn") is not None:
            depth = getattr(mixer, "depth", 0) / settings.num_hidden_layers
            self.add_module("ffn", ChannelMix(settings.hidden_size, settings.intermediate_size, depth))

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree, Handed]:
        """As `MixerLayer.forward`."""
        mixing, newest = (None, None) if state is None else state
        added, mixing, handed = self.mix(self._part("ln1")(hidden), mixing, chunk)
        hidden = hidden + added
        if self._part("ffn") is None:
            return hidden, (mixing, None), handed
        inputs = self._part("ln2")(hidden)
        return hidden + self._part("ffn")(inputs, newest), (mixing, newest_of(inputs, newest, chunk)), handed


@cache
def _time_mix(depth: int) -> type[TimeMix]:
    """The time mixing of that layer."""
    return type("TimeMix", (TimeMix,), {"depth": depth, "__module__": TimeMix.__module__})


class RWKV7Plugin(MixerPlugin):
    """RWKV-7 "Goose" (Peng et al., arXiv 2503.14456): a matrix per head with a decay per channel and a removal.

    S_t = diag(d) S_(t-1) - (a k') (k'^T S_(t-1)) + k v^T, o_t = S_t^T r, with k' a unit vector and d above 0.545. Every
    map reads a mixture of a token and the one before; values are mixed with the first layer's; feed-forward layers are
    relu squared. After the authors' torch code. Here heads have a size of their own, where theirs divide the width by
    64, and every parameter is trained at one rate.
    """

    name = "rwkv7"
    summary = "decoder of matrix memories with decay and removal, tokens shifted (RWKV-7; no positions)"
    version = "1"
    classification = Classification("2503.14456", 2025, memory=("matrix",), written=("decay", "delta"))
    mixer, layer_class = TimeMix, RWKV7Layer
    # Ranks after the authors' rule, but for the smallest size, where they would be half as large as the width.
    preset_settings = {  # noqa: RUF012 (a class-level constant of the contract)
        "tiny": {"intermediate_size": 256},
        "30m": {
            "intermediate_size": 1792, "num_heads": 7, "head_dim": 64,
            "decay_rank": 64, "removal_rank": 64, "value_rank": 32, "gate_rank": 96,
        },
        "119m": {
            "intermediate_size": 3584, "num_heads": 14, "head_dim": 64,
            "decay_rank": 64, "removal_rank": 64, "value_rank": 64, "gate_rank": 160,
        },
    }  # fmt: skip

    @classmethod
    def mixers(cls, settings: Any) -> Sequence[type[Mixer[Any]]]:
        """Each layer has first values of its own, and the first no values before it."""
        return [_time_mix(depth) for depth in range(settings.num_hidden_layers)]

    @classmethod
    def embedding_norm(cls, settings: Any) -> nn.Module:
        """ln0."""
        return nn.LayerNorm(settings.hidden_size, settings.norm_epsilon)

    def matrix_parts(self, config: Any, parameter_name: str) -> Sequence[int] | None:
        """The mixtures of channel mixing are numbers per channel too."""
        return () if parameter_name.endswith(".ffn.x_k") else super().matrix_parts(config, parameter_name)

    def flops(self, config: Any, sequence_length: int) -> Flops:
        """Two maps in a feed-forward layer, not three."""
        counted = dict(super().flops(config, sequence_length).forward)
        if "mlp" in counted:
            counted["mlp"] = counted["mlp"] // 3 * 2
        return Flops(counted)

    def state_bytes(self, config: Any, sequence_length: int) -> int:
        """Channel mixing carries an input on too."""
        carried = 4 * config.num_hidden_layers * config.hidden_size if config.feed_forward != "none" else 0
        return super().state_bytes(config, sequence_length) + carried
