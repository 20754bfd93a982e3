"""seqbench: a benchmark harness for sequence-model architectures.

This package is the core. It names no architecture and no task; both are plugins (see `seqbench.contracts`).
"""

__version__ = "0.2.0"
