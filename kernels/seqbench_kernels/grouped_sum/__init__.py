"""Grouped sum: running sums of vectors over the tokens of the same group."""

from seqbench_kernels.grouped_sum.dispatch import OPERATION, grouped_sum
from seqbench_kernels.grouped_sum.reference import grouped_sum_plain, grouped_sum_reference

__all__ = ["OPERATION", "grouped_sum", "grouped_sum_plain", "grouped_sum_reference"]
