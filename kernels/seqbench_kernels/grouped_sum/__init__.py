"""Grouped sum: running sums of vectors over the tokens of the same group."""

from seqbench_kernels.grouped_sum.reference import grouped_sum_reference
from seqbench_kernels.grouped_sum.scan import grouped_sum

__all__ = ["grouped_sum", "grouped_sum_reference"]
