"""Causal softmax attention over the last `window` tokens, or over all of them."""

from seqbench_kernels.sliding_window_attention.dispatch import OPERATION, sliding_window_attention
from seqbench_kernels.sliding_window_attention.reference import sliding_window_attention_reference

__all__ = ["OPERATION", "sliding_window_attention", "sliding_window_attention_reference"]
