"""The ablation "non-unitary": a memory of complex numbers whose magnitude is free, where PMNet's are of magnitude one.

Ours: a reviewer of arXiv 2605.13370 asked for a relaxed magnitude and gave no equation. docs/decisions.md says what was
chosen where that leaves a choice.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmnet_plugin.configuration import PMNetConfig
from pmnet_plugin.memory import MemoryWrite, Recurrence, bounded_angle, project
from seqbench_kernels.grouped_sum import grouped_sum
from seqbench_kernels.memory_write import slot_weights

# Below it the direction of a sum is rounding: fp32 increments of about 1 leave an error of 1e-7.
_SMALLEST_MAGNITUDE = 1e-6


class RelaxedMemoryWrite(MemoryWrite):
    """Adds s_n rho exp(i theta) to the complex state z of each slot; rho is learned per angle, theta is PMNet's.

    m accumulates the angle of z, and the reads of the level see geo(m + e) weighed by |z| / (1 + |z|).
    """

    def __init__(self, config: PMNetConfig) -> None:
        super().__init__(config)
        self.proj_rho = nn.Linear(config.memory_size, config.memory_size)
        self.recurrence = Recurrence(config, grouped_sum)

    def weights_and_increments(self, query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The weights of the slots and s_n rho exp(i theta), (B, T, N, 2M): real parts, then imaginary parts."""
        weights = slot_weights(query, keys)
        angle = bounded_angle(project(self.proj_out, values))
        magnitude = F.softplus(project(self.proj_rho, values))
        step = torch.cat((magnitude * angle.cos(), magnitude * angle.sin()), dim=-1)
        return weights, weights.unsqueeze(-1) * step.unsqueeze(2)

    def phases_and_gate(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """atan2(z) and |z| / (1 + |z|), both (B, T, N, M), of z (B, T, N, 2M)."""
        return polar(sums)


def polar(values: Tensor) -> tuple[Tensor, Tensor]:
    """The angle atan2(z) in radians and |z| / (1 + |z|) of z, (..., 2M) with the real parts first; both (..., M).

    The angle's gradient grows as 1 / |z|; below a magnitude of 1e-6 it shrinks again, to zero at z = 0, so that it is
    finite everywhere and at most 1e6.
    """
    return _Polar.apply(values)


class _Polar(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> tuple[Tensor, Tensor]:
        real, imaginary = values.chunk(2, dim=-1)
        magnitude = torch.hypot(real, imaginary)
        ctx.save_for_backward(values, magnitude)
        return torch.atan2(imaginary, real), magnitude / (1 + magnitude)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        values, magnitude = ctx.saved_tensors
        # The direction of zero is taken to be zero.
        length = magnitude.clamp(min=torch.finfo(magnitude.dtype).tiny)
        real, imaginary = (part / length for part in values.chunk(2, dim=-1))
        by_angle = gradients[0] * magnitude / magnitude.clamp(min=_SMALLEST_MAGNITUDE).square()
        by_gate = gradients[1] / (1 + magnitude).square()
        return torch.cat((by_gate * real - by_angle * imaginary, by_gate * imaginary + by_angle * real), dim=-1)
