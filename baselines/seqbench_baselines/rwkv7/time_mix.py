"""The mixer of RWKV-7, its time mixing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from seqbench.contracts import setting
from seqbench.mixers import Chunk, Mixer, Tree
from seqbench_baselines.precision import full_precision
from seqbench_baselines.rwkv7.recurrence import recurrence, recurrence_flops

# Of the norm of what is read: constant, as in the authors' demonstration, where fla's grows with the head.
_READ_EPSILON = 64e-5
# The largest rate of decay, exp(-1/2): a channel keeps at least 0.545 of itself.
_LARGEST_RATE = 0.6065306597126334
_INPUTS = ("r", "w", "k", "v", "a", "g")


@dataclass(frozen=True)
class RWKV7Settings:
    """Of the memory, and the ranks of the maps that decide what is done to it."""

    num_heads: int = setting(4, "heads, each with a memory", minimum=1)
    head_dim: int = setting(16, "size of a head: rows and columns of its memory", minimum=1)
    decay_rank: int = setting(16, "rank of the map to decays", minimum=1)
    removal_rank: int = setting(16, "rank of the map to strengths of removal", minimum=1)
    value_rank: int = setting(16, "rank of the map that mixes the first layer's values in", minimum=1)
    gate_rank: int = setting(16, "rank of the map to output gates", minimum=1)


class TimeMix(Mixer[Any]):
    """S_t = diag(d) S_(t-1) - (a k') (k'^T S_(t-1)) + k v^T, o_t = S_t^T r, per head; k' is a unit vector.

    All is made of mixtures of a token and the one before it; d, a and the gate by maps of low rank.
    """

    settings_class = RWKV7Settings
    defaults = {"norm": "layer", "norm_epsilon": 1e-5, "intermediate_size": 256}  # noqa: RUF012
    # Which layer it is, from 0: first values depend on it, and layer 0 has no values of an earlier one.
    depth: ClassVar[int] = 1
    w0: nn.Parameter
    w1: nn.Parameter
    w2: nn.Parameter
    a0: nn.Parameter
    a1: nn.Parameter
    a2: nn.Parameter
    v0: nn.Parameter
    v1: nn.Parameter
    v2: nn.Parameter
    g1: nn.Parameter
    g2: nn.Parameter

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.inner = settings.num_heads * settings.head_dim
        for name in _INPUTS:
            self.register_parameter(f"x_{name}", nn.Parameter(torch.empty(1, 1, hidden_size)))
        ranks = {"w": settings.decay_rank, "a": settings.removal_rank}
        if self.depth > 0:
            ranks["v"] = settings.value_rank
        for name, rank in ranks.items():
            self.register_parameter(f"{name}0", nn.Parameter(torch.empty(1, 1, self.inner)))
            self._low_rank(name, rank)
        self._low_rank("g", settings.gate_rank)
        self.k_k, self.k_a = (nn.Parameter(torch.empty(1, 1, self.inner)) for _ in range(2))
        self.r_k = nn.Parameter(torch.empty(settings.num_heads, settings.head_dim))
        self.receptance, self.key, self.value = (nn.Linear(hidden_size, self.inner, bias=False) for _ in range(3))
        self.output = nn.Linear(self.inner, hidden_size, bias=False)
        self.ln_x = nn.GroupNorm(settings.num_heads, self.inner, eps=_READ_EPSILON)

    def _low_rank(self, name: str, rank: int) -> None:
        self.register_parameter(f"{name}1", nn.Parameter(torch.empty(self.hidden_size, rank)))
        self.register_parameter(f"{name}2", nn.Parameter(torch.empty(rank, self.inner)))

    def initialise(self) -> None:
        """As in the authors' code, by channel and depth."""
        layers, depth = self.settings.num_hidden_layers, self.depth
        channel = torch.arange(self.hidden_size, dtype=torch.float64) / self.hidden_size
        for name in _INPUTS:
            power = {"r": 0.2, "g": 0.2, "w": 0.9, "a": 0.9, "k": 0.7, "v": 0.7}[name]
            init.copy_(self.get_parameter(f"x_{name}"), (1 - channel ** (power * (1 - depth / layers)))[None, None])
        place = torch.arange(self.inner, dtype=torch.float64) / max(1, self.inner - 1)
        half = max(0.5, (self.settings.head_dim - 1) / 2)
        in_head = torch.arange(self.settings.head_dim, dtype=torch.float64).repeat(self.settings.num_heads) / half - 1
        zig, linear = in_head * in_head.abs(), place - 0.5
        later = depth / max(1, layers - 1)
        starts = {"w": -5.5 + 6 * place ** (1 + later**0.3) + 2.5 * zig, "a": -0.19 + 0.3 * zig + 0.4 * linear}
        if depth > 0:
            starts["v"] = 0.73 - 0.4 * linear
        for name, start in starts.items():
            init.copy_(self.get_parameter(f"{name}0"), start[None, None])
        for name in (*starts, "g"):
            init.zeros_(self.get_parameter(f"{name}1"))
            second = self.get_parameter(f"{name}2")
            init.orthogonal_(second, gain=0.1 * max(1.0, (second.shape[0] / second.shape[1]) ** 0.5))
        init.copy_(self.k_k, (0.71 - 0.1 * linear)[None, None])
        init.constant_(self.k_a, 1.02)
        init.constant_(self.r_k, -0.04)
        bound = 0.5 / self.hidden_size**0.5
        for layer, scale in ((self.receptance, bound), (self.value, bound), (self.key, bound / 10)):
            init.uniform_(layer.weight, -scale, scale)
        init.zeros_(self.output.weight)
        init.constant_(self.ln_x.weight, ((depth + 1) / layers) ** 0.7)

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree, Tree]:
        """The memory and the newest input are carried on, the first layer's values handed to the others."""
        memory, newest = (None, None) if state is None else state
        mixed = dict(zip(_INPUTS, self._mixtures(hidden, newest), strict=True))
        read, key, value = self.receptance(mixed["r"]), self.key(mixed["k"]), self.value(mixed["v"])
        first = value if chunk.stream is None else chunk.stream
        if self.depth > 0:
            value = value + (first - value) * (self.v0 + mixed["v"] @ self.v1 @ self.v2).sigmoid()
        decay = self.w0.float() + ((mixed["w"] @ self.w1).tanh() @ self.w2).float()
        log_decay = -_LARGEST_RATE * decay.sigmoid()
        removal = (self.a0.float() + (mixed["a"] @ self.a1 @ self.a2).float()).sigmoid()
        heads = (self.settings.num_heads, self.settings.head_dim)
        unit = F.normalize((key * self.k_k).float().unflatten(-1, heads), dim=-1, eps=1e-12)
        key = key.float() * (1 + (removal - 1) * self.k_a.float())
        r, k, v, w, a = (t.float().unflatten(-1, heads) for t in (read, key, value, log_decay, removal))
        if memory is None:
            memory = r.new_zeros(r.shape[0], heads[0], heads[1], heads[1])
        with full_precision(r):
            found, memory = recurrence(
                r, chunk.fill(w, 0.0), chunk.fill(k, 0.0), v, unit, chunk.fill(a * unit, 0.0), memory
            )
        # In fp32 like what was read, whatever the model's weights are in.
        weight, bias = self.ln_x.weight.float(), self.ln_x.bias.float()
        normed = F.group_norm(found.flatten(2).flatten(0, 1), heads[0], weight, bias, _READ_EPSILON)
        normed = normed.view(*found.shape[:2], -1)
        bonus = (r * k * self.r_k.float()).sum(dim=-1, keepdim=True) * v
        gate = (mixed["g"] @ self.g1).sigmoid() @ self.g2
        output = self.output((normed + bonus.flatten(2)).to(hidden.dtype) * gate)
        return output, (memory, newest_of(hidden, newest, chunk)), first

    def _mixtures(self, hidden: Tensor, newest: Tensor | None) -> list[Tensor]:
        difference = shifted(hidden, newest) - hidden
        return [hidden + difference * self.get_parameter(f"x_{name}") for name in _INPUTS]

    @classmethod
    def flops(cls, settings: Any, length: int) -> int:
        """Maps, those of low rank too, and the products of the chunked recurrence."""
        inner, width = settings.num_heads * settings.head_dim, settings.hidden_size
        ranks = settings.decay_rank + settings.removal_rank + settings.gate_rank
        ranks += settings.value_rank if cls.depth > 0 else 0
        maps = 4 * width * inner + (width + inner) * ranks
        return 2 * length * maps + recurrence_flops(length, settings.num_heads, settings.head_dim)

    @classmethod
    def matrix_parts(cls, settings: Any, parameter_name: str) -> Sequence[int] | None:
        """Numbers per channel are laid out as tables; maps of low rank are stored input first."""
        vectors = ("x_", "w0", "a0", "v0", "k_", "r_k")
        return () if parameter_name.startswith(vectors) else None

    @classmethod
    def confounds(cls, settings: Any) -> dict[str, str]:
        """What else a layer sees, and how it is computed."""
        return {
            "short convolution": "a learned mixture with the token before, before each map",
            "feed-forward": "relu squared, behind a mixture with the token before",
            "state": f"{settings.num_heads} memories of {settings.head_dim} x {settings.head_dim} per layer",
            "initialisation": "as published, by channel and depth",
            "kernel path": "products over chunks in fp32",
        }


def shifted(hidden: Tensor, newest: Tensor | None) -> Tensor:
    """Each token's predecessor; zeros before the first."""
    before = torch.zeros_like(hidden[:, :1]) if newest is None else newest.unsqueeze(1).to(hidden.dtype)
    return torch.cat((before, hidden[:, :-1]), dim=1)


def newest_of(hidden: Tensor, newest: Tensor | None, chunk: Chunk) -> Tensor:
    """(batch, hidden_size), each row's last real token, or what was it before."""
    return chunk.last(hidden, torch.zeros_like(hidden[:, 0]) if newest is None else newest.to(hidden.dtype))
