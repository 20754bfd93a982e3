"""Causal self-attention with rotary positions, over a window or over everything, with a cache."""

import torch
from torch import Tensor, nn

from seqbench.nn.cache import AttentionCache, ChunkPlan, store_chunk
from seqbench.nn.layers import RMSNorm
from seqbench.nn.rotary import apply_rotary
from seqbench.plugins.kernels import find_kernel


class Attention(nn.Module):
    """Grouped-query softmax attention without biases; RMSNorm on queries and keys before the rotary encoding.

    Query head j uses key/value head j // (heads / key_value_heads); the scale is head_dim^-1/2.

    Args:
        hidden_size: size of the residual stream.
        heads, key_value_heads, head_dim: their product need not be hidden_size.
        window: how many tokens a query sees, its own included; None is full attention.
        norm_epsilon: epsilon of the query and key norms.
        dropout: probability of dropping an attention weight in training.
    """

    def __init__(
        self,
        hidden_size: int,
        heads: int,
        key_value_heads: int,
        head_dim: int,
        window: int | None,
        norm_epsilon: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.head_dim, self.window, self.dropout = head_dim, window, dropout
        # Found once: entry points are no part of what torch.compile can trace.
        self._attend = find_kernel("sliding_window_attention")
        self.q_proj = nn.Linear(hidden_size, heads * head_dim, bias=False)
        self.k_proj = nn.Linear(hidden_size, key_value_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(hidden_size, key_value_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(heads * head_dim, hidden_size, bias=False)
        self.q_norm = RMSNorm(head_dim, norm_epsilon)
        self.k_norm = RMSNorm(head_dim, norm_epsilon)

    def forward(
        self,
        hidden: Tensor,
        rotary: tuple[Tensor, Tensor],
        plan: ChunkPlan,
        cache: AttentionCache | None,
        layer_index: int,
    ) -> Tensor:
        """Attend within (batch, length, hidden_size) and to the cache, which then holds this chunk too."""
        query = apply_rotary(self.q_norm(self._heads(self.q_proj(hidden))), rotary)
        key = apply_rotary(self.k_norm(self._heads(self.k_proj(hidden))), rotary)
        value = self._heads(self.v_proj(hidden))
        if cache is not None:
            if cache.kept:
                key = torch.cat((cache.keys[layer_index].to(key.dtype), key), dim=2)
                value = torch.cat((cache.values[layer_index].to(value.dtype), value), dim=2)
            store_chunk(cache, plan, layer_index, key, value)
        mixed = self._attend(
            query,
            key,
            value,
            self.window,
            prefix_valid=plan.prefix_valid,
            dropout=self.dropout if self.training else 0.0,
            implementation=plan.implementation,
        )
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
