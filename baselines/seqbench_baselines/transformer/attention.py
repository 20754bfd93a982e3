"""Softmax attention as a mixer: over everything before a token, or over a window."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seqbench.contracts import setting
from seqbench.errors import RequestError
from seqbench.mixers import Chunk, Mixer, Tree
from seqbench.nn import (
    AttentionParts,
    alibi_slopes,
    apply_rotary,
    attended_pairs,
    attention_flops,
    head_windows,
    score_mask,
)

# Position encodings that change scores: the announced operation takes a window alone.
_AS_MASKS = ("alibi", "hard-alibi")


@dataclass(frozen=True)
class AttentionSettings:
    """Of attention."""

    num_attention_heads: int = setting(2, "query heads", minimum=1)
    num_key_value_heads: int = setting(2, "key/value heads; divides the query heads", minimum=1)
    head_dim: int = setting(32, "size of a head; heads x size may differ from the hidden size", minimum=1)
    rope_theta: float = setting(1e4, "base of the rotary wavelengths", minimum=1)
    attention_dropout: float = setting(0.0, "share of attention weights dropped in training", minimum=0, maximum=0.99)


@dataclass(frozen=True)
class WindowSettings(AttentionSettings):
    """Of attention over a window."""

    sliding_window: int = setting(4, "tokens that attention sees, the query's own included, in every layer", minimum=2)


class Attention(AttentionParts, Mixer[Any]):
    """Grouped-query softmax attention over all earlier tokens, RMSNorm on queries and keys.

    It carries keys and values, each (batch, key/value heads, kept tokens, head_dim), the newest of a row in the last
    place: which of the others hold a token follows from how many the row has seen.
    """

    settings_class = AttentionSettings
    defaults = {"position_encoding": "rotary"}  # noqa: RUF012 (a class-level constant of the contract)
    positions = ("rotary", *_AS_MASKS)
    parameter_groups = {"": "attention"}  # noqa: RUF012 (a class-level constant of the contract)

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        heads = settings.num_attention_heads, settings.num_key_value_heads, settings.head_dim
        window, epsilon, dropout = self.window_of(settings), settings.norm_epsilon, settings.attention_dropout
        self.make_parts(hidden_size, *heads, window, epsilon, dropout)

    @classmethod
    def window_of(cls, settings: Any) -> int | None:
        """How many tokens a query sees, its own included; None for all."""
        del settings
        return None

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """The newest keys and values are carried on, window - 1 of them or all."""
        query, key, value = self.project(hidden)
        if self.settings.position_encoding == "rotary":
            tables = chunk.rotary(self.head_dim, self.settings.rope_theta)
            query, key = apply_rotary(query, tables), apply_rotary(key, tables)
        prefix_valid = None
        if state is not None:
            prefix_valid = chunk.prefix_valid(state[0].shape[2])
            key = torch.cat((state[0].to(key.dtype), key), dim=2)
            value = torch.cat((state[1].to(value.dtype), value), dim=2)
        after = self._newest(key, chunk), self._newest(value, chunk)
        if self.settings.position_encoding not in _AS_MASKS:
            return self.attend(query, key, value, prefix_valid, chunk.attention), after
        return self.attend_masked(query, key, value, self._mask(chunk, query, key.shape[2], prefix_valid)), after

    def _newest(self, values: Tensor, chunk: Chunk) -> Tensor:
        if self.window is None and chunk.lengths is None:
            return values
        places = values.shape[2] if self.window is None else self.window - 1
        return chunk.newest(values.detach().transpose(1, 2), None, places).transpose(1, 2)

    def _mask(self, chunk: Chunk, query: Tensor, total: int, prefix_valid: Tensor | None) -> Tensor:
        encoding, (heads, length) = self.settings.position_encoding, query.shape[1:3]
        if chunk.attention != "sdpa":
            raise ValueError(
                f"attn_implementation {chunk.attention!r} cannot apply position_encoding {encoding}; choose sdpa"
            )
        windows = head_windows(encoding, heads, self.window)
        slopes = alibi_slopes(heads) if encoding == "alibi" else None
        return chunk.once(
            (encoding, heads, self.window, total, query.dtype),
            lambda: score_mask(slopes, windows, length, total, prefix_valid, query),
        )

    @classmethod
    def check(cls, settings: Any) -> None:
        """Raise RequestError for heads that cannot be shared or turned."""
        heads, shared = settings.num_attention_heads, settings.num_key_value_heads
        if heads % shared:
            raise RequestError(f"num_attention_heads ({heads}) must be a multiple of num_key_value_heads ({shared})")
        if settings.position_encoding == "rotary" and settings.head_dim % 2:
            raise RequestError(f"head_dim must be even for rotary positions, not {settings.head_dim}")

    @classmethod
    def reach(cls, settings: Any) -> int | None:
        """The window without the token itself; None for all."""
        window = cls.window_of(settings)
        return None if window is None else window - 1

    attention_reach = reach

    @classmethod
    def flops(cls, settings: Any, length: int) -> int:
        """Projections, and the pairs inside the mask."""
        windows = head_windows(settings.position_encoding, settings.num_attention_heads, cls.window_of(settings))
        return attention_flops(settings, length, sum(attended_pairs(length, window) for window in windows))

    @classmethod
    def state_bytes(cls, settings: Any, length: int) -> int:
        """Keys and values; a window holds its places from the first token on."""
        window = cls.window_of(settings)
        return 8 * settings.num_key_value_heads * settings.head_dim * (length if window is None else window - 1)

    @classmethod
    def confounds(cls, settings: Any) -> dict[str, str]:
        """The path of attention, and the wavelengths of rotary positions."""
        encoding, window = settings.position_encoding, cls.window_of(settings)
        path = "scaled_dot_product_attention" if window is None else "blockwise window attention"
        if encoding in _AS_MASKS:
            path = "scaled_dot_product_attention with a mask of all pairs"
        lines = {"kernel path": path}
        if encoding == "rotary":
            lines["position encoding"] = f"rotary, theta {settings.rope_theta:g}"
        return lines


class WindowAttention(Attention):
    """The same over a window of tokens."""

    settings_class = WindowSettings

    @classmethod
    def window_of(cls, settings: Any) -> int:
        """As set."""
        return settings.sliding_window
