"""Causal self-attention with rotary positions, over a window or over everything, with a cache."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqbench.nn.cache import AttentionCache, ChunkPlan, store_chunk
from seqbench.nn.layers import RMSNorm
from seqbench.nn.rotary import apply_rotary
from seqbench.plugins.kernels import find_kernel


class AttentionParts(nn.Module):
    """Grouped-query softmax attention without biases, RMSNorm on queries and keys: its parameters, and its products.

    Query head j uses key/value head j // (heads / key_value_heads); the scale is head_dim^-1/2. What stands between
    projection and attention (positions, a cache) is the subclass's, which calls `make_parts` when it is made.
    """

    def make_parts(
        self,
        hidden_size: int,
        heads: int,
        key_value_heads: int,
        head_dim: int,
        window: int | None,
        norm_epsilon: float,
        dropout: float,
    ) -> None:
        """Add the modules.

        Args:
            hidden_size: size of the residual stream.
            heads: query heads; heads x head_dim need not be hidden_size.
            key_value_heads: divides the query heads.
            head_dim: size of a head.
            window: how many tokens a query sees, its own included; None is full attention.
            norm_epsilon: epsilon of the query and key norms.
            dropout: probability of dropping an attention weight in training.
        """
        self.head_dim, self.window, self.dropout = head_dim, window, dropout
        # Found once: entry points are no part of what torch.compile can trace.
        self._attend = find_kernel("sliding_window_attention")
        self.q_proj = nn.Linear(hidden_size, heads * head_dim, bias=False)
        self.k_proj = nn.Linear(hidden_size, key_value_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(hidden_size, key_value_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(heads * head_dim, hidden_size, bias=False)
        self.q_norm = RMSNorm(head_dim, norm_epsilon)
        self.k_norm = RMSNorm(head_dim, norm_epsilon)

    def project(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised queries and keys, and values, (batch, heads, length, size), of (batch, length, hidden_size)."""
        query = self.q_norm(self._heads(self.q_proj(hidden)))
        key = self.k_norm(self._heads(self.k_proj(hidden)))
        return query, key, self._heads(self.v_proj(hidden))

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, prefix_valid: Tensor | None, implementation: str
    ) -> Tensor:
        """(batch, length, hidden_size) of what queries see; arguments as the operation `sliding_window_attention`."""
        mixed = self._attend(
            query,
            key,
            value,
            self.window,
            prefix_valid=prefix_valid,
            dropout=self.dropout if self.training else 0.0,
            implementation=implementation,
        )
        return self._join(mixed)

    def attend_masked(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """(batch, length, hidden_size) by torch's own attention; `mask` is added to the scores: see `score_mask`."""
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return self._join(mixed)

    def _join(self, mixed: Tensor) -> Tensor:
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


class Attention(AttentionParts):
    """Attention with rotary positions and an `AttentionCache`; arguments as `AttentionParts.make_parts`."""

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
        self.make_parts(hidden_size, heads, key_value_heads, head_dim, window, norm_epsilon, dropout)

    def forward(
        self,
        hidden: Tensor,
        rotary: tuple[Tensor, Tensor],
        plan: ChunkPlan,
        cache: AttentionCache | None,
        layer_index: int,
    ) -> Tensor:
        """Attend within (batch, length, hidden_size) and to the cache, which then holds this chunk too."""
        query, key, value = self.project(hidden)
        query, key = apply_rotary(query, rotary), apply_rotary(key, rotary)
        if cache is not None:
            if cache.kept:
                key = torch.cat((cache.keys[layer_index].to(key.dtype), key), dim=2)
                value = torch.cat((cache.values[layer_index].to(value.dtype), value), dim=2)
            store_chunk(cache, plan, layer_index, key, value)
        return self.attend(query, key, value, plan.prefix_valid, plan.implementation)
