"""The plugins `gru` and `lstm`: torch's own layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import initialization as init

from seqbench.contracts import Classification, setting
from seqbench.mixers import Chunk, Mixer, MixerPlugin, Tree


@dataclass(frozen=True)
class RecurrentSettings:
    """Of the recurrent layer."""

    state_size: int = setting(64, "numbers that a layer carries on (an LSTM twice as many)", minimum=1)


class RecurrentLayer(Mixer[Any]):
    """A recurrent layer of torch, and a linear map out of its state."""

    settings_class = RecurrentSettings
    # Of size of input and state, and whether the batch comes first.
    layer: ClassVar[Any]
    # Maps of the input and of the state each, one below the other in torch's weights.
    gates: ClassVar[int]
    # What is carried on: states of one kind each.
    carried: ClassVar[int]

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.rnn = self.layer(hidden_size, settings.state_size, batch_first=True)
        self.out = nn.Linear(settings.state_size, hidden_size, bias=False)

    def initialise(self) -> None:
        """As torch does it: uniform, up to the root of 1 / state_size."""
        bound = self.settings.state_size**-0.5
        for parameter in self.rnn.parameters():
            init.uniform_(parameter, -bound, bound)

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """The states after each row's last real token are carried on."""
        if state is None:
            state = (hidden.new_zeros(hidden.shape[0], self.settings.state_size),) * self.carried
        before = tuple(part.to(hidden.dtype).unsqueeze(0).contiguous() for part in state)
        outputs, after = self._run(hidden, before if self.carried > 1 else before[0], chunk.lengths)
        after = tuple(part.squeeze(0) for part in (after if self.carried > 1 else (after,)))
        if chunk.lengths is not None:
            some = chunk.lengths.unsqueeze(1) > 0
            after = tuple(torch.where(some, new, old) for new, old in zip(after, state, strict=True))
        return self.out(outputs), after

    def _run(self, hidden: Tensor, before: Any, lengths: Tensor | None) -> tuple[Tensor, Any]:
        """What torch's layer returns; of a row without real tokens, that after its first place."""
        if lengths is None:
            return self.rnn(hidden, before)
        lengths = lengths.clamp(min=1).cpu()
        packed = pack_padded_sequence(hidden, lengths, batch_first=True, enforce_sorted=False)
        outputs, after = self.rnn(packed, before)
        return pad_packed_sequence(outputs, batch_first=True, total_length=hidden.shape[1])[0], after

    @classmethod
    def flops(cls, settings: Any, length: int) -> int:
        """Maps of input and state for each gate, and the map out."""
        width, size = settings.hidden_size, settings.state_size
        return 2 * length * size * (cls.gates * (width + size) + width)

    @classmethod
    def matrix_parts(cls, settings: Any, parameter_name: str) -> Sequence[int] | None:
        """One matrix a gate."""
        return (settings.state_size,) * cls.gates if parameter_name.startswith("rnn.weight") else None

    @classmethod
    def confounds(cls, settings: Any) -> dict[str, str]:
        """The state, and that tokens are computed one after the other."""
        return {
            "state": f"{cls.carried} x {settings.state_size} numbers per layer",
            "initialisation": f"normal, deviation {settings.initializer_range:g}; recurrent layers as torch has them",
            "kernel path": f"torch.nn.{cls.layer.__name__}, one token after the other",
        }


class GRU(RecurrentLayer):
    """h_t = z h_(t-1) + (1 - z) n, gates z and r and candidate n of token and state."""

    layer, gates, carried = nn.GRU, 3, 1


class GRUPlugin(MixerPlugin):
    """The gated recurrent unit (Cho et al., arXiv 1406.1078) as torch has it, in the kit's decoder.

    h_t = z h_(t-1) + (1 - z) n with n = tanh(W x + r (U h_(t-1))) and gates z and r, sigmoids of token and state.
    """

    name = "gru"
    summary = "decoder of gated recurrent units (torch's GRU; no positions)"
    version = "1"
    classification = Classification("1406.1078", 2014, memory=("vector",), written=("decay",))
    mixer = GRU
    preset_settings = {"30m": {"state_size": 256}, "119m": {"state_size": 512}}  # noqa: RUF012 (of the contract)


class LSTM(RecurrentLayer):
    """c_t = f c_(t-1) + i g, h_t = o tanh(c_t), gates i, f and o and candidate g of token and h_(t-1)."""

    layer, gates, carried = nn.LSTM, 4, 2


class LSTMPlugin(MixerPlugin):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997, with the forget gate of Gers et al., 2000), torch's.

    c_t = f c_(t-1) + i g and h_t = o tanh(c_t), gates i, f, o and candidate g of token and h_(t-1). Biases begin as
    torch has them: no head start for the forget gate.
    """

    name = "lstm"
    summary = "decoder of long short-term memories (torch's LSTM; no positions)"
    version = "1"
    classification = Classification(None, 1997, memory=("vector",), written=("decay",))
    mixer = LSTM
    preset_settings = {"30m": {"state_size": 256}, "119m": {"state_size": 512}}  # noqa: RUF012
