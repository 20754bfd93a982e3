"""Small mixers that the plain decoder is not made for, each with what the kit has for it: `exceptional:Shared`..."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from own_gru import GRU
from own_recurrence import GatedRecurrence, OwnRecurrence
from torch import Tensor, nn

from seqbench.contracts import setting
from seqbench.mixers import Chunk, Mixer, MixerLayer, MixerPlugin, Tree, causal_taps


class Shared(OwnRecurrence):
    """One layer's weights at every depth, each depth with a state of its own."""

    name, summary, version = "shared", "one block shared over the depth", "1"
    mixer = GatedRecurrence

    @classmethod
    def mixers(cls, settings: Any) -> Sequence[type[Mixer[Any]]]:
        """One."""
        return [cls.mixer]

    @classmethod
    def order(cls, settings: Any) -> Sequence[int]:
        """That one each time."""
        return [0] * settings.num_hidden_layers


class ParallelLayer(MixerLayer):
    """Mixer and feed-forward layer beside each other, on one norm."""

    def __init__(self, mixer: Mixer[Any], settings: Any) -> None:
        super().__init__(mixer, settings)
        self.mlp_norm = None

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree, Tree]:
        """Both are added at once."""
        inputs = self.mixer_norm(hidden)
        added, state, stream = self.mix(inputs, state, chunk)
        assert self.mlp is not None
        return hidden + added + self.mlp(inputs), state, stream


class Parallel(MixerPlugin):
    """Another block around the mixer."""

    name, summary, version = "parallel", "mixer and feed-forward layer in parallel", "1"
    mixer, layer_class = GatedRecurrence, ParallelLayer


class Handing(GatedRecurrence):
    """Hands its output to the next layer, beside the residual stream."""

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.taken = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree, Tree]:
        """What the layer before handed on is mixed in; in the first layer, a stream of ones."""
        stream = torch.ones_like(hidden) if chunk.stream is None else chunk.stream
        added, state = super().forward(hidden + self.taken(stream).tanh(), state, chunk)
        return added, state, stream + added


class Streamed(MixerPlugin):
    """A stream that passes from layer to layer."""

    name, summary, version = "streamed", "layers that hand something on besides the residual stream", "1"
    mixer = Handing


class Restrained(GatedRecurrence):
    """Is trained to add little as well: an auxiliary loss, the mean square of a row's outputs."""

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree, Tree, Tensor]:
        """The loss of each row is over its real tokens alone."""
        added, state = super().forward(hidden, state, chunk)
        squares = chunk.fill(added, 0.0).square().sum(dim=(1, 2))
        return added, state, chunk.stream, 0.01 * squares / chunk.added.clamp(min=1)


class Penalised(MixerPlugin):
    """A loss besides that of the next token."""

    name, summary, version = "penalised", "layers with an auxiliary loss", "1"
    mixer = Restrained


class Pairs(Mixer[Any]):
    """Looks pairs of neighbouring tokens up in a table: the token ids are handed to the layer."""

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.table = nn.Embedding(97, hidden_size)

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """A pair's entry, by a hash of the two tokens, on the hidden state before; a row's first token pairs with 0."""
        ids = chunk.input_ids.unsqueeze(-1)
        id_before, hidden_before = (torch.zeros_like(ids[:, :1]), hidden[:, :1] * 0) if state is None else state
        pairs = torch.cat((id_before, ids), dim=1)
        looked_up = self.table((pairs[:, :-1] * 31 + pairs[:, 1:]).squeeze(-1) % 97)
        shifted = torch.cat((hidden_before.to(hidden.dtype), hidden[:, :-1]), dim=1)
        return shifted * looked_up, (chunk.newest(ids, id_before, 1), chunk.newest(hidden, hidden_before, 1))

    @classmethod
    def reach(cls, settings: Any) -> int:
        """One token back."""
        return 1

    @classmethod
    def state_bytes(cls, settings: Any, length: int) -> int:
        """A token id of 64 bits and the hidden state of its token."""
        return 8 + 4 * settings.hidden_size


class LookedUp(MixerPlugin):
    """Token ids in a layer."""

    name, summary, version = "looked-up", "layers that look pairs of tokens up", "1"
    mixer = Pairs


@dataclass(frozen=True)
class CachingSettings:
    """Of the mixer around another one."""

    cached: int = setting(8, "tokens between two memories that are kept", minimum=1)


class Around(Mixer[Any]):
    """A mixer around another one: its output, gated by a mean of the newest inputs."""

    settings_class = CachingSettings
    short_convolution_inside = True

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.inner = GRU(hidden_size, settings)
        self.taps = nn.Parameter(torch.ones(hidden_size, max(1, settings.short_convolution)))

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """Its state holds that of the other."""
        state = state or {"inner": None, "inputs": None}
        mixed, inner = self.inner(hidden, state["inner"], chunk)
        gate = causal_taps(hidden, state["inputs"], self.taps).sigmoid()
        places = self.taps.shape[1] - 1
        return mixed * gate, {"inner": inner, "inputs": chunk.newest(hidden, state["inputs"], places)}


class Nested(MixerPlugin):
    """A mixer around another mixer."""

    name, summary, version = "nested", "a mixer around another mixer", "1"
    mixer = Around
