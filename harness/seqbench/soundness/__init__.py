"""Whether a model may be scored at all: it must not read the future, nor other rows.

This is tried before its first run, with fresh weights made lively and the run's own settings, and once more after
training.
"""
