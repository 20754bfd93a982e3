"""PMNet's carried state: constant memory at any length."""

from dataclasses import dataclass, field

from torch import Tensor

from seqbench.nn import AttentionCache


@dataclass
class PMNetCache(AttentionCache):
    """The attention window of every layer, and the table of every level of the memory tree.

    Attributes:
        tables: per level (batch, groups, slots * angles) int32 phases in steps of 2^-32 turns, or with relaxed dynamics
            (batch, groups, slots * 2 * angles) fp64, of each slot the real parts and then the imaginary ones; empty
            before the first call and for models that carry no memory.
    """

    tables: list[Tensor] = field(default_factory=list)

    def reorder_cache(self, beam_index: Tensor) -> None:
        """Keep the rows `beam_index`, in that order (beam search)."""
        super().reorder_cache(beam_index)
        self.tables = [table.index_select(0, beam_index) for table in self.tables]
