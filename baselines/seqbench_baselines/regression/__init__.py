"""Decoders whose layers solve a regression of values on keys for every token."""
