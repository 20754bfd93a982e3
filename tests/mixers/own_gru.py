"""A mixer of one's own: torch's GRU."""

from typing import Any

from torch import Tensor, nn

from seqbench.mixers import Chunk, Mixer, MixerPlugin, Tree


class GRU(Mixer[Any]):
    """The gated recurrent unit (Cho et al., arXiv 1406.1078), as torch has it."""

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.rnn = nn.GRU(hidden_size, hidden_size, batch_first=True)

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """States after every token are the outputs; the one after a row's last real token is carried on."""
        before = hidden.new_zeros(hidden.shape[0], self.hidden_size) if state is None else state
        outputs, _ = self.rnn(hidden, before.unsqueeze(0))
        return outputs, chunk.last(outputs, before)


class OwnGRU(MixerPlugin):
    """A decoder of GRUs."""

    name, summary, version = "own-gru", "decoder of gated recurrent units", "1"
    mixer = GRU
