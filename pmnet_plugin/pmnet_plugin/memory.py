"""The routed tree of phase-valued memory: write and read modules (PMNet, arXiv 2605.13370).

Shapes use B sequences, T tokens, N slots per group, M angles per slot, R read heads. Angles, scores and phases are
fp32; the linear maps run in the compute dtype that autocast or the parameters give them.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmnet_plugin.configuration import PMNetConfig
from seqbench.nn import RMSNorm
from seqbench_kernels.phase_scan import phase_scan
from seqbench_kernels.phase_scores import phase_scores, phasor


@dataclass(frozen=True)
class MemoryStream:
    """What a token carries from layer to layer beside its hidden state.

    Attributes:
        phases: m, (B, T, N, M) fp32 radians, or None while it is still zero (before the first write).
        group: g, (B, T) int64, or None while every token is in group 0 (the root).
    """

    phases: Tensor | None = None
    group: Tensor | None = None

    def angles(self, anchors: Tensor) -> Tensor:
        """A = m + E[g], broadcastable to (B, T, N, M); `anchors` is the level's table (groups, N, M)."""
        if self.group is None:
            own = anchors[:1]
        else:
            own = F.embedding(self.group, anchors.flatten(1)).unflatten(-1, anchors.shape[1:])
        return own.float() if self.phases is None else self.phases + own


class MemoryWrite(nn.Module):
    """Adds a phase increment to the token's group, softly over its slots, and routes the token to a child group."""

    def __init__(self, config: PMNetConfig) -> None:
        super().__init__()
        hidden, angles = config.hidden_size, config.memory_size
        self.recurrent = config.memory_cumsum
        self.scale_gradient = config.gradient_scale == "sqrt-count"
        self.norm = RMSNorm(hidden, config.rms_norm_eps)
        self.proj_q = nn.Linear(hidden, angles)
        self.proj_v = nn.Linear(hidden, angles)
        self.proj_k = nn.Linear(2 * angles, angles)
        self.proj_out = nn.Linear(angles, angles)

    def forward(
        self, hidden: Tensor, stream: MemoryStream, anchors: Tensor, table: Tensor | None, real: Tensor | None
    ) -> tuple[MemoryStream, Tensor | None, Tensor]:
        """Write one level.

        Args:
            hidden: (B, T, hidden_size).
            stream: m and g before the write.
            anchors: (groups, N, M), the level's E.
            table: S_0, (B, groups, N * M) int32 steps of 2^-32 turns, or None for zero.
            real: (B, T) bool, false for padding, or None when nothing is padded.

        Returns:
            m after the write with the same g, the final table (None without recurrence), and the next group, (B, T).
        """
        normalised = self.norm(hidden)
        keys = _project(self.proj_k, phasor(stream.angles(anchors)))
        scores = phase_scores(_project(self.proj_q, normalised).unsqueeze(2), keys)
        weights = scores.softmax(dim=-1)
        step = _bounded_angle(_project(self.proj_out, _project(self.proj_v, normalised)))
        increments = weights.unsqueeze(-1) * step.unsqueeze(2)
        written, table = self._accumulate(increments, stream.group, anchors.shape[0], table, real)
        phases = written if stream.phases is None else stream.phases + written
        slots = anchors.shape[1]
        chosen = weights.argmax(dim=-1)
        next_group = chosen if stream.group is None else stream.group * slots + chosen
        return MemoryStream(phases, stream.group), table, next_group

    def _accumulate(
        self, increments: Tensor, group: Tensor | None, number_of_groups: int, table: Tensor | None, real: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if not self.recurrent:
            return increments, None
        if real is not None:
            group = torch.where(real, 0 if group is None else group, number_of_groups)
        phases, table = phase_scan(increments.flatten(2), group, number_of_groups, table, self.scale_gradient)
        return phases.view(increments.shape), table


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
        """Read geo(m + e), `slots` of shape (B, T, N, 2M), with queries from hidden; returns (B, T, hidden_size).

        Values are linear in the slots and the weights sum to one, so the slots are mixed first and projected after:
        the value projection costs R products of (2M, M) per token instead of N R of them.
        """
        query = _project(self.proj_q, self.norm(hidden)).unflatten(-1, (self.heads, self.angles))
        dtype = self.proj_kv.weight.dtype
        key_weight, value_weight = self.proj_kv.weight.chunk(2)
        key_bias, value_bias = self.proj_kv.bias.chunk(2)
        keys = F.linear(slots.to(dtype), key_weight, key_bias)
        keys = keys.float().unflatten(-1, (self.heads, self.angles))
        weights = phase_scores(query.unsqueeze(2), keys).softmax(dim=2)
        # Autocast would round the mix to its dtype; only the projection after it may run there.
        with torch.autocast(slots.device.type, enabled=False):
            mixed = torch.matmul(weights.transpose(2, 3), slots).to(dtype)
        per_head = mixed.flatten(0, 1).transpose(0, 1)
        value_weight = value_weight.view(self.heads, self.angles, -1).transpose(1, 2)
        values = torch.baddbmm(value_bias.view(self.heads, 1, self.angles), per_head, value_weight)
        values = values.transpose(0, 1).reshape(*hidden.shape[:2], -1)
        return self.proj_out(values)


def _project(linear: nn.Linear, features: Tensor) -> Tensor:
    """A linear map in the compute dtype, returned to fp32 for what follows (angles, scores)."""
    return linear(features.to(linear.weight.dtype)).float()


def _bounded_angle(values: Tensor) -> Tensor:
    """phi(x) = pi tanh(x), in radians."""
    return values.tanh() * math.pi
