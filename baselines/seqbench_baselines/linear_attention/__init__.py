"""Decoders of linear attention: matrix memories that are added to, and fade in one way or another."""
