"""What the attention-like regressions share: projections, rotary positions, and keys and values that are carried."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from seqbench.contracts import setting
from seqbench.errors import RequestError
from seqbench.mixers import Chunk, Mixer, Tree
from seqbench.nn import RMSNorm, apply_rotary


@dataclass(frozen=True)
class RegressionAttentionSettings:
    """Of attention."""

    num_heads: int = setting(2, "query heads", minimum=1)
    head_dim: int = setting(32, "size of a head; heads x size may differ from the hidden size", minimum=1)
    qk_norm: bool = setting(False, "whether queries and keys pass an RMSNorm per head before they are turned")
    rope_theta: float = setting(1e4, "base of the rotary wavelengths", minimum=1)


class RegressionAttention(Mixer[Any]):
    """Causal attention over keys and values that are carried; a subclass says what comes of them (`attend`).

    It carries keys and values, each (batch, key heads, kept tokens, head_dim), the newest of a row in the last place.
    """

    defaults = {"position_encoding": "rotary"}  # noqa: RUF012 (a class-level constant of the contract)
    positions = ("rotary",)
    parameter_groups = {"": "attention"}  # noqa: RUF012 (a class-level constant of the contract)
    # The projections that are queries, by the first letter of their names.
    queries: ClassVar[str] = "q"

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        size, bias = settings.head_dim, self.has_biases(settings)
        width, shared = settings.num_heads * size, self.key_heads(settings) * size
        for name in (*self.queries, "k", "v"):
            projected = width if name in self.queries else shared
            self.add_module(f"{name}_proj", nn.Linear(hidden_size, projected, bias=bias))
        self.o_proj = nn.Linear(width, hidden_size, bias=False)
        for name in (*self.queries, "k") if settings.qk_norm else ():
            self.add_module(f"{name}_norm", RMSNorm(size, settings.norm_epsilon))

    @classmethod
    def has_biases(cls, settings: Any) -> bool:
        """Whether queries, keys and values have biases."""
        del settings
        return False

    @classmethod
    def key_heads(cls, settings: Any) -> int:
        """How many heads keys and values have."""
        return settings.num_heads

    @classmethod
    def window_of(cls, settings: Any) -> int | None:
        """How many tokens a query sees, its own included; None for all."""
        del settings
        return None

    def attend(self, queries: list[Tensor], key: Tensor, value: Tensor, prefix_valid: Tensor | None) -> Tensor:
        """(batch, heads, length, head_dim); all in fp32, the new places of key and value at the end."""
        raise NotImplementedError

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """The newest keys and values are carried on, window - 1 of them or all."""
        *queries, key = (self._turned(name, hidden, chunk) for name in (*self.queries, "k"))
        value, prefix_valid = self._heads("v", hidden), None
        if state is not None:
            prefix_valid = chunk.prefix_valid(state[0].shape[2])
            key, value = (
                torch.cat((old.to(new.dtype), new), dim=2) for old, new in zip(state, (key, value), strict=True)
            )
        read = self.attend(queries, key, value, prefix_valid)
        carried = self._newest(key, chunk), self._newest(value, chunk)
        return self.o_proj(read.transpose(1, 2).flatten(2).to(hidden.dtype)), carried

    def _heads(self, name: str, hidden: Tensor) -> Tensor:
        """(batch, heads, length, head_dim) in fp32 of a projection."""
        projected = self.get_submodule(f"{name}_proj")(hidden).float()
        return projected.unflatten(-1, (-1, self.settings.head_dim)).transpose(1, 2)

    def _turned(self, name: str, hidden: Tensor, chunk: Chunk) -> Tensor:
        heads = self._heads(name, hidden)
        if self.settings.qk_norm:
            heads = self.get_submodule(f"{name}_norm")(heads)
        if self.settings.position_encoding == "rotary":
            heads = apply_rotary(heads, chunk.rotary(self.settings.head_dim, self.settings.rope_theta))
        return heads

    def _newest(self, tensor: Tensor, chunk: Chunk) -> Tensor:
        window = self.window_of(self.settings)
        tokens = tensor.detach().transpose(1, 2)
        return chunk.newest(tokens, None, tokens.shape[1] if window is None else window - 1).transpose(1, 2)

    @classmethod
    def check(cls, settings: Any) -> None:
        """Raise RequestError for heads that cannot be turned."""
        if settings.position_encoding == "rotary" and settings.head_dim % 2:
            raise RequestError(
                f"head_dim={settings.head_dim}: rotary positions turn pairs of channels; take"
                f" {settings.head_dim + 1}, or position_encoding=none"
            )

    @classmethod
    def reach(cls, settings: Any) -> int | None:
        """The window without the token itself; None for all."""
        window = cls.window_of(settings)
        return None if window is None else window - 1

    attention_reach = reach

    @classmethod
    def state_bytes(cls, settings: Any, length: int) -> int:
        """Keys and values; a window holds its places from the first token on."""
        window = cls.window_of(settings)
        return 8 * cls.key_heads(settings) * settings.head_dim * (length if window is None else window - 1)

    @classmethod
    def confounds(cls, settings: Any) -> dict[str, str]:
        """The wavelengths of rotary positions."""
        if settings.position_encoding != "rotary":
            return {}
        return {"position encoding": f"rotary, theta {settings.rope_theta:g}"}
