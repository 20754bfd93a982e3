"""Phasor features: angles as sines and cosines, what the phasor memory's linear maps see of a phase."""

from seqbench_kernels.phasor.fused import phasor
from seqbench_kernels.phasor.reference import phasor_reference

__all__ = ["phasor", "phasor_reference"]
