"""What the members of the family share: projections, a matrix per head, a normalised and gated output."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqbench.contracts import setting
from seqbench.errors import RequestError
from seqbench.mixers import Chunk, Mixer, Tree
from seqbench.nn import RMSNorm, apply_rotary, rotary_tables
from seqbench_kernels.decayed_linear_attention import (
    decayed_linear_attention,
    decayed_linear_attention_path,
    forward_flops,
)

ROTARY_BASE = 10000.0
# Of the norm of what is read, flash-linear-attention's layers.
_READ_EPSILON = 1e-5


@dataclass(frozen=True)
class LinearAttentionSettings:
    """Of the memory."""

    num_heads: int = setting(4, "heads, each with a memory", minimum=1)
    head_dim: int = setting(16, "size of a query or key: rows of a head's memory", minimum=1)
    value_head_dim: int = setting(16, "size of a value: columns of a head's memory", minimum=1)


class LinearAttentionMixer(Mixer[Any]):
    """S_t = diag(d_t) S_(t-1) + k_t v_t^T, o_t = S_t^T q_t / sqrt(head_dim), y = out(norm(o) SiLU(gate)), per head.

    A subclass says the decay d; queries, keys and values are projections, unless it says otherwise.
    """

    settings_class = LinearAttentionSettings
    positions: ClassVar[Sequence[str]] = ("rotary",)
    g_proj: nn.Module

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        keys, values = settings.num_heads * settings.head_dim, settings.num_heads * settings.value_head_dim
        self.q_proj, self.k_proj = (nn.Linear(hidden_size, keys, bias=False) for _ in range(2))
        self.v_proj = nn.Linear(hidden_size, values, bias=False)
        self.o_proj = nn.Linear(values, hidden_size, bias=False)
        self.make_gate(values)

    def make_gate(self, values: int) -> None:
        """The modules of the gate and of the norm before it."""
        self.g_proj = nn.Linear(self.hidden_size, values, bias=False)
        self.g_norm_swish_gate = RMSNorm(self.settings.value_head_dim, _READ_EPSILON)

    def log_decay(self, hidden: Tensor) -> Tensor | None:
        """(batch, length, heads) or (batch, length, heads, head_dim) in fp32; None for no decay."""
        raise NotImplementedError

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """The memory after the last real token is carried on."""
        query, key, value = self.q_proj(hidden), self.k_proj(hidden), self.v_proj(hidden)
        read, memory = self.recur(query, key, value, self.log_decay(hidden), state, chunk)
        return self.gated(read, hidden), memory

    def recur(
        self, query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor | None, memory: Tensor | None, chunk: Chunk
    ) -> tuple[Tensor, Tensor]:
        """What is read, (batch, length, heads, value_head_dim), and the memory, of inputs (batch, length, channels)."""
        heads = self.settings.num_heads
        query, key, value = (tensor.float().unflatten(-1, (heads, -1)) for tensor in (query, key, value))
        if self.settings.position_encoding == "rotary":
            size = self.settings.head_dim
            tables = chunk.once(("rotary", size), lambda: rotary_tables(chunk.positions, size, ROTARY_BASE))
            query, key = (apply_rotary(tensor.transpose(1, 2), tables).transpose(1, 2) for tensor in (query, key))
        log_decay = None if log_decay is None else chunk.fill(log_decay, 0.0)
        key = chunk.fill(key, 0.0)
        return decayed_linear_attention(query * self.settings.head_dim**-0.5, key, value, log_decay, memory)

    def gated(self, read: Tensor, hidden: Tensor) -> Tensor:
        """The layer's output: what was read, normalised per head and gated."""
        normalised = self.g_norm_swish_gate(read).flatten(2).to(hidden.dtype)
        return self.o_proj(normalised * F.silu(self.g_proj(hidden)))

    @classmethod
    def check(cls, settings: Any) -> None:
        """Rotary positions turn pairs of channels."""
        if settings.position_encoding == "rotary" and settings.head_dim % 2:
            raise RequestError(
                f"head_dim={settings.head_dim}: rotary positions turn pairs of channels; take"
                f" {settings.head_dim + 1}, or position_encoding=none"
            )

    @classmethod
    def flops(cls, settings: Any, length: int) -> int:
        """Linear maps, and the products of the chunked recurrence as this project computes it."""
        with torch.device("meta"):
            layer = cls(settings.hidden_size, settings)
        maps = sum(module.weight.numel() for module in layer.modules() if isinstance(module, nn.Linear))
        memory = forward_flops(length, settings.num_heads, settings.head_dim, settings.value_head_dim)
        return 2 * length * maps + memory

    @classmethod
    def confounds(cls, settings: Any) -> dict[str, str]:
        """The size of the memory, and by which path it is computed."""
        return {
            "state": f"{settings.num_heads} memories of {settings.head_dim} x {settings.value_head_dim} per layer",
            "kernel path": decayed_linear_attention_path("cpu"),
        }
