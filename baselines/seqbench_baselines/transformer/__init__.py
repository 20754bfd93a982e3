"""Decoder transformers: full causal attention, and a sliding window."""
