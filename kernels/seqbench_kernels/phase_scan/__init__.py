"""Grouped phase scan: running sums of phase increments over the tokens of the same group."""

from seqbench_kernels.phase_scan.dispatch import OPERATION, phase_scan
from seqbench_kernels.phase_scan.reference import phase_scan_plain, phase_scan_reference
from seqbench_kernels.phase_scan.step import phase_step_
from seqbench_kernels.phase_scan.turns import pack_steps, radians_to_steps, steps_to_radians

__all__ = [
    "OPERATION",
    "pack_steps",
    "phase_scan",
    "phase_scan_plain",
    "phase_scan_reference",
    "phase_step_",
    "radians_to_steps",
    "steps_to_radians",
]
