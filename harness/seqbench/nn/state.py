"""What a model carries from one call to the next."""

from abc import ABC, abstractmethod

from torch import Tensor


class CarriedState(ABC):
    """What continues a sequence, in the form that `generate` of transformers works with.

    A subclass adds the tensors that its model carries, each with the rows of the batch first.

    Attributes:
        seen: (batch,) int64, number of real tokens so far; None before the first chunk.
    """

    seen: Tensor | None
    # Asked for by `generate`: whether it may be compiled into the model's call, and cut back to fewer tokens.
    is_compileable = False
    is_croppable = False

    @abstractmethod
    def reorder_cache(self, beam_index: Tensor) -> None:
        """Keep the rows `beam_index`, in that order; a row may be kept several times (beam search)."""

    def get_seq_length(self, layer_index: int = 0) -> int:
        """Largest number of tokens seen by any row (the name `generate` asks for)."""
        del layer_index
        return 0 if self.seen is None else int(self.seen.max())
