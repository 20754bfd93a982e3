"""Phase scores and phasor features: the elementwise heart of the phasor memory."""

from seqbench_kernels.phase_scores.fused import phase_scores, phasor
from seqbench_kernels.phase_scores.reference import phase_scores_reference, phasor_reference

__all__ = ["phase_scores", "phase_scores_reference", "phasor", "phasor_reference"]
