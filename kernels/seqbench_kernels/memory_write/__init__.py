"""Memory write: how a token's write is shared among the slots of its group, and what each slot receives."""

from seqbench_kernels.memory_write.dispatch import OPERATION, memory_write, slot_weights
from seqbench_kernels.memory_write.reference import memory_write_reference, slot_weights_reference

__all__ = ["OPERATION", "memory_write", "memory_write_reference", "slot_weights", "slot_weights_reference"]
