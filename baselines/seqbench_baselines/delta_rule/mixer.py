"""The delta rule with one memory per head: what DeltaNet, Gated DeltaNet and Kimi Delta Attention share."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqbench.mixers import Chunk, Tree
from seqbench_baselines.delta_rule.memories import DeltaMemories
from seqbench_kernels.delta_rule import forward_flops


class DeltaRuleMixer(DeltaMemories):
    """One memory per head, y = out(norm(o) x gate). A subclass says how it fades (`log_decay`), and the gate."""

    # Whether `log_decay` has a number for every channel of the keys.
    decay_per_channel = False

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.k_proj = nn.Linear(hidden_size, self.keys, bias=False)
        self.v_proj = nn.Linear(hidden_size, self.values, bias=False)
        self.b_proj = nn.Linear(hidden_size, self.value_heads, bias=False)

    def log_decay(self, hidden: Tensor) -> Tensor | None:
        """(batch, length, value heads) or (batch, length, value heads, head_dim), in fp32; None for no decay."""
        raise NotImplementedError

    def gate(self, hidden: Tensor) -> Tensor | None:
        """(batch, length, values), what the normalised output is multiplied by; None for 1."""
        raise NotImplementedError

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """As `recur`, normalised, gated and mapped back."""
        maps = torch.cat((self.q_proj.weight, self.k_proj.weight, self.v_proj.weight))
        inputs = F.linear(hidden, maps)
        read, state = self.recur(inputs, self.b_proj(hidden), self.log_decay(hidden), state, chunk)
        output, gate = self.o_norm(read).flatten(2).to(hidden.dtype), self.gate(hidden)
        return self.o_proj(output if gate is None else output * gate), state

    @classmethod
    def flops(cls, settings: Any, length: int) -> int:
        """Linear maps, and the products of the chunked delta rule as this project computes it."""
        with torch.device("meta"):
            layer = cls(settings.hidden_size, settings)
        maps = sum(m.weight.numel() for m in layer.modules() if isinstance(m, nn.Linear))
        heads = settings.num_heads * settings.value_heads_per_key
        rule = forward_flops(length, heads, settings.head_dim, settings.value_head_dim, cls.decay_per_channel)
        return 2 * length * maps + rule
