"""Decoders of the recurrent layers that torch has."""
