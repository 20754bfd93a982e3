"""A mixer of one's own: a matrix memory, written by the delta rule."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqbench.contracts import setting
from seqbench.errors import RequestError
from seqbench.mixers import Chunk, Mixer, MixerPlugin, Tree


@dataclass(frozen=True)
class DeltaSettings:
    """Of the memory."""

    num_heads: int = setting(2, "heads, each with a memory of its own", minimum=1)


class DeltaRule(Mixer[Any]):
    """S_t = S_{t-1} + b_t k_t (v_t - S_{t-1}^T k_t)^T, read as S_t^T q_t (Schlag et al., arXiv 2102.11174)."""

    settings_class = DeltaSettings

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.query = nn.Linear(hidden_size, hidden_size, bias=False)
        self.key = nn.Linear(hidden_size, hidden_size, bias=False)
        self.value = nn.Linear(hidden_size, hidden_size, bias=False)
        self.rate = nn.Linear(hidden_size, settings.num_heads)
        self.out = nn.Linear(hidden_size, hidden_size, bias=False)

    @classmethod
    def check(cls, settings: Any) -> None:
        """The width is cut into heads."""
        if settings.hidden_size % settings.num_heads:
            raise RequestError(f"num_heads={settings.num_heads} does not divide hidden_size={settings.hidden_size}")

    def _heads(self, values: Tensor) -> Tensor:
        return values.unflatten(-1, (self.settings.num_heads, -1))

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """Token by token; at padding nothing is written."""
        query = F.normalize(self._heads(self.query(hidden)).float(), dim=-1)
        key = F.normalize(self._heads(self.key(hidden)).float(), dim=-1)
        value = self._heads(self.value(hidden)).float()
        rate = chunk.fill(torch.sigmoid(self.rate(hidden).float()), 0.0)
        memory = key.new_zeros(*key[:, 0].shape, value.shape[-1]) if state is None else state
        read = []
        for q, k, v, b in zip(query.unbind(1), key.unbind(1), value.unbind(1), rate.unbind(1), strict=True):
            found = torch.einsum("bhkv,bhk->bhv", memory, k)
            memory = memory + torch.einsum("bhk,bhv->bhkv", k, b.unsqueeze(-1) * (v - found))
            read.append(torch.einsum("bhkv,bhk->bhv", memory, q))
        return self.out(torch.stack(read, dim=1).flatten(2).to(hidden.dtype)), memory


class OwnDeltaRule(MixerPlugin):
    """A decoder of delta rules."""

    name, summary, version = "own-delta-rule", "decoder of matrix memories, written by the delta rule", "1"
    mixer = DeltaRule
