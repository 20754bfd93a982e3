"""Memory read: multi-head attention of each token over the phase-valued slots of its own group."""

from seqbench_kernels.memory_read.operation import OPERATION, memory_read
from seqbench_kernels.memory_read.reference import memory_read_reference

__all__ = ["OPERATION", "memory_read", "memory_read_reference"]
