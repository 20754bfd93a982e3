"""The routed tree of phase-valued memory: write and read modules (PMNet, arXiv 2605.13370).

Shapes use B sequences, T tokens, N slots per group, M angles per slot, R read heads. Angles, scores and phases are
fp32; the linear maps run in the compute dtype that autocast or the parameters give them.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmnet_plugin.configuration import PMNetConfig
from seqbench.nn import RMSNorm
from seqbench_kernels.memory_read import memory_read
from seqbench_kernels.memory_write import memory_write
from seqbench_kernels.phase_scan import phase_scan
from seqbench_kernels.phasor import phasor


class Recurrence(nn.Module):
    """The running sum of a write's increments over the tokens of a group; without parameters.

    A module of its own, so that what goes in and comes out can be observed (diagnostics.py).
    """

    def __init__(self, config: PMNetConfig, scan: Callable[..., tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.recurrent = config.memory_cumsum
        self.scale_gradient = config.gradient_scale == "sqrt-count"
        self.scan = scan

    def forward(
        self, increments: Tensor, group: Tensor | None, number_of_groups: int, table: Tensor | None, real: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Sums of the increments D, (B, T, N, channels), and the final table; `increments` and None without recurrence.

        The other arguments as `MemoryWrite.forward`.
        """
        if not self.recurrent:
            return increments, None
        if real is not None:
            group = torch.where(real, 0 if group is None else group, number_of_groups)
        sums, table = self.scan(increments.flatten(2), group, number_of_groups, table, self.scale_gradient)
        return sums.view(increments.shape), table


class MemoryWrite(nn.Module):
    """Adds a phase increment to the token's group, softly over its slots, and routes the token to a child group."""

    def __init__(self, config: PMNetConfig) -> None:
        super().__init__()
        hidden, angles = config.hidden_size, config.memory_size
        self.routes = config.memory_tree == "routed"
        self.norm = RMSNorm(hidden, config.rms_norm_eps)
        self.proj_q = nn.Linear(hidden, angles)
        self.proj_v = nn.Linear(hidden, angles)
        self.proj_k = nn.Linear(2 * angles, angles)
        self.proj_out = nn.Linear(angles, angles)
        self.recurrence = Recurrence(config, phase_scan)

    def forward(
        self,
        hidden: Tensor,
        phases: Tensor | None,
        group: Tensor | None,
        anchors: Tensor,
        table: Tensor | None,
        real: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Write one level.

        Args:
            hidden: (B, T, hidden_size).
            phases: m before the write, (B, T, N, M) fp32 radians, or None while it is still zero.
            group: g, (B, T) int64, or None while every token is in group 0.
            anchors: (groups, N, M), the level's E.
            table: S_0, the level's entry of `PMNetCache.tables`, or None for zero.
            real: (B, T) bool, false for padding, or None when nothing is padded.

        Returns:
            m after the write, what the reads of the level see of it (B, T, N, 2M), the final table (None without
            recurrence), and the next group, (B, T) int64 (None in a flat memory).
        """
        normalised = self.norm(hidden)
        keys = project(self.proj_k, phasor(_anchored(phases, group, anchors)))
        values = project(self.proj_v, normalised)
        weights, increments = self.weights_and_increments(project(self.proj_q, normalised), keys, values)
        sums, table = self.recurrence(increments, group, anchors.shape[0], table, real)
        written, gate = self.phases_and_gate(sums)
        phases = written if phases is None else phases + written
        slots = phasor(_anchored(phases, group, anchors))
        if gate is not None:
            slots = slots * gate.repeat(1, 1, 1, 2)
        return phases, slots, table, self._next_group(weights, group) if self.routes else None

    def weights_and_increments(self, query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The weights of the slots, (B, T, N), and D: what each slot receives, (B, T, N, M) radians.

        query, values: (B, T, M); keys: (B, T, N, M), or (1, 1, N, M) while all tokens share them; before phi.
        """
        return memory_write(query, keys, project(self.proj_out, values))

    def phases_and_gate(self, sums: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the sums of the increments add to m, (B, T, N, M) radians, and a factor of the read's geo, or None."""
        return sums, None

    @staticmethod
    def _next_group(weights: Tensor, group: Tensor | None) -> Tensor:
        chosen = weights.argmax(dim=-1)
        return chosen if group is None else group * weights.shape[-1] + chosen


class MemoryRead(nn.Module):
    """Multi-head attention of each token over the N slots of its own group."""

    def __init__(self, config: PMNetConfig) -> None:
        super().__init__()
        hidden, angles, heads = config.hidden_size, config.memory_size, config.num_memory_read_heads
        self.heads, self.angles = heads, angles
        self.norm = RMSNorm(hidden, config.rms_norm_eps)
        self.proj_q = nn.Linear(hidden, heads * angles)
        self.proj_kv = nn.Linear(2 * angles, 2 * heads * angles)
        self.proj_out = nn.Linear(heads * angles, hidden)

    def forward(self, hidden: Tensor, slots: Tensor) -> Tensor:
        """Read geo(m + e), `slots` of shape (B, T, N, 2M), with queries from hidden; returns (B, T, hidden_size)."""
        query = self.proj_q(self.norm(hidden)).unflatten(-1, (self.heads, self.angles))
        return self.proj_out(memory_read(query, slots, self.proj_kv.weight, self.proj_kv.bias))


def _anchored(phases: Tensor | None, group: Tensor | None, anchors: Tensor) -> Tensor:
    """Angles m + E[g], broadcastable to (B, T, N, M); arguments as `MemoryWrite.forward`."""
    if group is None:
        own = anchors[:1].unsqueeze(0)
    else:
        own = F.embedding(group, anchors.flatten(1)).unflatten(-1, anchors.shape[1:])
    return own.float() if phases is None else phases + own


def project(linear: nn.Linear, features: Tensor) -> Tensor:
    """A linear map in the compute dtype, returned to fp32 for what follows (angles, scores)."""
    return linear(features.to(linear.weight.dtype)).float()


def bounded_angle(values: Tensor) -> Tensor:
    """phi(x) = pi tanh(x), in radians."""
    return values.tanh() * math.pi
