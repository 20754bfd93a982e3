"""The carried state of long convolutions: their newest inputs."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from seqbench.nn import CarriedState, RowPacking


@dataclass
class ConvolutionCache(CarriedState):
    """What continues a sequence exactly, whatever the length of the next chunk.

    Rows are right-aligned: the newest real token is in the last place. A place before a row's first token holds zero,
    which is what a convolution takes to be there.

    Attributes:
        places: most inputs that are kept of a layer, the filter's length less one.
        inputs: per layer (batch, kept, hidden_size), the newest inputs of the convolution, newest last.
        seen: (batch,) int64, number of real tokens so far; None before the first chunk.
    """

    places: int
    inputs: list[Tensor] = field(default_factory=list)
    seen: Tensor | None = None

    def history(self, layer_index: int, new: Tensor) -> Tensor:
        """(batch, kept, hidden_size): what the layer saw before the inputs `new`; kept is 0 at the beginning."""
        return new[:, :0] if self.seen is None else self.inputs[layer_index].to(new.dtype)

    def store(self, layer_index: int, history: Tensor, new: Tensor, packing: RowPacking | None) -> None:
        """Keep the newest inputs of a layer, of `history` and `new`; real tokens are at the front of a row of `new`.

        Gradients are never carried from one call into the next (truncated backpropagation through time).
        """
        extended = torch.cat((history, new), dim=1).detach()
        places = min(self.places, extended.shape[1])
        if packing is None:
            # A copy in any case: a view would keep the whole chunk's inputs alive as long as the state.
            newest = extended[:, extended.shape[1] - places :].clone()
        else:
            # Zeros in front, for the places of a row that has fewer real tokens than the others.
            padded = F.pad(extended, (0, 0, new.shape[1], 0))
            first = history.shape[1] + new.shape[1] + packing.lengths - places
            index = first.unsqueeze(1) + torch.arange(places, device=new.device)
            newest = padded.gather(1, index.unsqueeze(-1).expand(-1, -1, padded.shape[2]))
        if layer_index < len(self.inputs):
            self.inputs[layer_index] = newest
        else:
            self.inputs.append(newest)

    def advance(self, new: Tensor, packing: RowPacking | None) -> None:
        """Record that all layers have stored a chunk of the token ids `new` (batch, length)."""
        added = torch.full_like(new[:, 0], new.shape[1]) if packing is None else packing.lengths
        self.seen = added.clone() if self.seen is None else self.seen + added

    def reorder_cache(self, beam_index: Tensor) -> None:
        """Keep the rows `beam_index`, in that order (beam search)."""
        self.inputs = [inputs.index_select(0, beam_index) for inputs in self.inputs]
        if self.seen is not None:
            self.seen = self.seen.index_select(0, beam_index)
