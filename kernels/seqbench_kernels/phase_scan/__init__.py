"""Grouped phase scan: running sums of phase increments over the tokens of the same group."""

from seqbench_kernels.phase_scan.reference import phase_scan_reference
from seqbench_kernels.phase_scan.scan import phase_scan
from seqbench_kernels.phase_scan.turns import pack_steps, radians_to_steps, steps_to_radians

__all__ = ["pack_steps", "phase_scan", "phase_scan_reference", "radians_to_steps", "steps_to_radians"]
