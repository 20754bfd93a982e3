"""Mamba's carried state: of constant size, whatever the number of tokens."""

from dataclasses import dataclass, field

from torch import Tensor

from seqbench.nn import CarriedState


@dataclass
class MambaCache(CarriedState):
    """What continues a sequence exactly, whatever the length of the next chunk.

    Attributes:
        conv_states: per layer (batch, channels, conv_kernel - 1), the newest inputs of the convolution, newest last.
        ssm_states: per layer (batch, channels, state_size).
        seen: (batch,) int64, number of real tokens so far; None before the first chunk.
    """

    conv_states: list[Tensor] = field(default_factory=list)
    ssm_states: list[Tensor] = field(default_factory=list)
    seen: Tensor | None = None

    def layer(self, index: int) -> tuple[Tensor, Tensor] | None:
        """Convolution and scan state of a layer, or None before the first chunk."""
        return None if self.seen is None else (self.conv_states[index], self.ssm_states[index])

    def store(self, states: list[tuple[Tensor, Tensor]], added: Tensor) -> None:
        """Keep the states of all layers after a chunk of `added` (batch,) real tokens.

        Gradients are never carried from one call into the next (truncated backpropagation through time).
        """
        self.conv_states = [conv_state.detach() for conv_state, _ in states]
        self.ssm_states = [ssm_state.detach() for _, ssm_state in states]
        self.seen = added.clone() if self.seen is None else self.seen + added

    def reorder_cache(self, beam_index: Tensor) -> None:
        """Keep the rows `beam_index`, in that order (beam search)."""
        self.conv_states = [states.index_select(0, beam_index) for states in self.conv_states]
        self.ssm_states = [states.index_select(0, beam_index) for states in self.ssm_states]
        if self.seen is not None:
            self.seen = self.seen.index_select(0, beam_index)
