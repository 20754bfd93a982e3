"""Decoders whose memory is a matrix per head, written by the delta rule."""
