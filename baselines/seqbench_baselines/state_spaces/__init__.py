"""Decoders of linear, time-invariant state spaces with complex diagonal transitions."""
