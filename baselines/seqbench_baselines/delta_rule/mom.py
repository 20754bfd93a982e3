"""The plugin `mom`."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqbench.contracts import Classification, setting
from seqbench.errors import RequestError
from seqbench.mixers import Chunk, MixerPlugin, Tree, map_tensors
from seqbench_baselines.delta_rule.memories import (
    FIRST_DECAYS,
    DeltaMemories,
    DeltaRuleSettings,
    fading,
    initial_decays,
)
from seqbench_kernels.delta_rule import forward_flops

# The maps that a memory may have of its own: to keys, values, strengths and steps of decay.
_MAPS = ("k", "v", "b", "a")


@dataclass(frozen=True)
class MixtureOfMemoriesSettings(DeltaRuleSettings):
    """Of the memories and their router."""

    num_heads: int = setting(2, "heads of queries and keys", minimum=1)
    num_memories: int = setting(4, "memories that tokens are routed to", minimum=1)
    memories_per_token: int = setting(2, "memories that a token writes to and reads from", minimum=1)
    shared_memory: bool = setting(True, "whether there is one more memory, which every token writes to and reads from")
    shared_projections: bool = setting(False, "whether all memories have the same keys, values and gates")
    balance_loss: float = setting(0.01, "weight of the auxiliary loss that spreads tokens over memories", minimum=0)


class MixtureOfMemories(DeltaMemories):
    """Memories of Gated DeltaNet, each of the tokens that a router gives it, as if there were no others.

    A token's output is the sum of what its memories recall, by their renormalised probabilities, and of what the shared
    one does. Each memory's tokens are moved to the front of a sequence of its own, convolutions and all.
    """

    settings_class = MixtureOfMemoriesSettings
    first_decays = FIRST_DECAYS.format(0)

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self._inputs = 2 * self.keys + self.values
        self.gate = nn.Linear(hidden_size, settings.num_memories, bias=False)
        for name, size in zip(_MAPS, (self.keys, self.values, self.value_heads, self.value_heads), strict=True):
            if not settings.shared_projections:
                own = [nn.Linear(hidden_size, size, bias=False) for _ in range(settings.num_memories)]
                self.add_module(f"{name}_proj", nn.ModuleList(own))
            if settings.shared_memory or settings.shared_projections:
                self.add_module(f"shared_{name}", nn.Linear(hidden_size, size, bias=False))
        self.A_log = nn.Parameter(torch.empty(self.value_heads))
        self.dt_bias = nn.Parameter(torch.empty(self.value_heads))
        self.g_proj = nn.Linear(hidden_size, self.values, bias=False)

    def initialise(self) -> None:
        """A from 0 to 16, as of Gated DeltaNet."""
        initial_decays(self.A_log, self.dt_bias, slowest=0.0)

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree, Tree, Tensor]:
        """The carried memories, and inputs of their convolutions, have the memory as their second dimension."""
        selected, weights, auxiliary = self._routed(hidden, chunk)
        rows, _, memories = weights.shape
        # Each memory's tokens first, in their order; what is not its own behind them, as padding.
        order = torch.sort((~selected).transpose(1, 2), dim=-1, stable=True).indices
        streams = _taken(self._projected(hidden), order).flatten(0, 1)
        lengths = selected.sum(dim=1).flatten()
        own = Chunk(streams.new_zeros(streams.shape[:2], dtype=torch.int64), torch.zeros_like(lengths), lengths)
        inputs, strength, steps = streams.split((self._inputs, self.value_heads, self.value_heads), dim=-1)
        before = map_tensors(lambda part: part.flatten(0, 1), state)
        read, after = self.recur(inputs, strength, fading(steps, self.A_log, self.dt_bias), before, own)

        found = read.flatten(2).unflatten(0, (rows, memories)) * _taken(weights.transpose(1, 2).unsqueeze(-1), order)
        places = order.flatten(1).unsqueeze(-1).expand(-1, -1, self.values)
        summed = found.new_zeros(rows, hidden.shape[1], self.values).scatter_add(1, places, found.flatten(1, 2))
        output = self.o_norm(summed.unflatten(-1, (self.value_heads, -1))).flatten(2).to(hidden.dtype)
        carried = map_tensors(lambda part: part.unflatten(0, (rows, memories)), after)
        return self.o_proj(output * F.silu(self.g_proj(hidden))), carried, chunk.stream, auxiliary

    def _routed(self, hidden: Tensor, chunk: Chunk) -> tuple[Tensor, Tensor, Tensor]:
        """Which memories each token has and their weights, (batch, length, memories), the shared one last; and the
        auxiliary loss, (batch,): memories x sum of (share of the row's tokens x mean probability), weighted.
        """
        settings = self.settings
        probability = chunk.fill(self.gate(hidden).float().softmax(dim=-1), 0.0)
        best, chosen = probability.topk(settings.memories_per_token, dim=-1)
        selected = torch.zeros_like(probability, dtype=torch.bool).scatter(-1, chosen, True)
        real = selected.new_ones(selected.shape[:2]) if chunk.real is None else chunk.real
        selected = selected & real.unsqueeze(-1)
        share = best / best.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(best.dtype).tiny)
        weights = torch.zeros_like(probability).scatter(-1, chosen, share)
        tokens = real.sum(dim=1, keepdim=True).clamp(min=1)
        spread = (selected.sum(dim=1) / tokens * probability.sum(dim=1) / tokens).sum(dim=-1)
        if settings.shared_memory:
            selected = torch.cat((selected, real.unsqueeze(-1)), dim=-1)
            weights = torch.cat((weights, torch.ones_like(weights[..., :1])), dim=-1)
        return selected, weights, settings.balance_loss * settings.num_memories * spread

    def _projected(self, hidden: Tensor) -> Tensor:
        """(batch, memories, length, inputs and gates): every token's, for every memory, its queries too."""
        settings = self.settings
        memories = settings.num_memories + settings.shared_memory
        columns = [[self.q_proj] * memories]
        for name in _MAPS:
            common = [getattr(self, f"shared_{name}")] if settings.shared_memory or settings.shared_projections else []
            own = common * settings.num_memories if settings.shared_projections else getattr(self, f"{name}_proj")
            columns.append([*own, *common][:memories])
        weight = torch.cat([layer.weight for memory in zip(*columns, strict=True) for layer in memory])
        return F.linear(hidden, weight).unflatten(-1, (memories, -1)).transpose(1, 2)

    @classmethod
    def check(cls, settings: Any) -> None:
        """A token cannot have more memories than there are."""
        if settings.memories_per_token > settings.num_memories:
            raise RequestError(
                f"memories_per_token={settings.memories_per_token} is more than num_memories={settings.num_memories}"
            )

    @classmethod
    def flops(cls, settings: Any, length: int) -> int:
        """Linear maps, and the chunked delta rule over all places for each memory, its own or not."""
        memories, heads = (
            settings.num_memories + settings.shared_memory,
            settings.num_heads * settings.value_heads_per_key,
        )
        keys, values = settings.num_heads * settings.head_dim, heads * settings.value_head_dim
        outputs = settings.num_memories + memories * (2 * keys + values + 2 * heads) + 2 * values
        rule = forward_flops(length, heads, settings.head_dim, settings.value_head_dim, False)
        return 2 * length * settings.hidden_size * outputs + memories * rule

    @classmethod
    def confounds(cls, settings: Any) -> dict[str, str]:
        """How many memories there are, and that all of them are computed."""
        memories = settings.num_memories + settings.shared_memory
        shared = " and a shared one" if settings.shared_memory else ""
        return {
            **super().confounds(settings),
            "memories": f"{memories} per head; a token has {settings.memories_per_token} of {settings.num_memories}"
            f"{shared}, and all are computed at every token",
        }


def _taken(values: Tensor, order: Tensor) -> Tensor:
    """`values` (batch, memories, length, size) in the order (batch, memories, length) of each memory."""
    return values.gather(2, order.unsqueeze(-1).expand(-1, -1, -1, values.shape[-1]))


class MixtureOfMemoriesPlugin(MixerPlugin):
    """Mixture-of-Memories (Du et al., arXiv 2502.13685) over Gated DeltaNet: tokens are routed to some of the memories.

    A memory that a token is not given stays as it is, without decay; short convolutions run along each memory's own
    tokens. As in flash-linear-attention's layer in evaluation, with a stable sort: in training that layer's
    convolutions see across rows, and an unstable sort takes tokens out of their order. Two things are ours. The loss
    that spreads tokens is that of each layer and row by itself, where the published one pools all of them. And every
    memory is computed at all places, its own or not, which costs (num_memories + 1) / (memories_per_token + 1) times
    what has to be computed.
    """

    name = "mom"
    summary = "decoder of matrix memories that tokens are routed to, written by the delta rule (Mixture-of-Memories)"
    version = "1"
    classification = Classification("2502.13685", 2025, memory=("matrix",), written=("decay", "delta", "route"))
    mixer = MixtureOfMemories
    # Feed-forward layers as wide as brings a preset to the size of transformer's.
    preset_settings = {  # noqa: RUF012
        "30m": {"num_heads": 4, "head_dim": 64, "value_head_dim": 64, "intermediate_size": 688},
        "119m": {"num_heads": 4, "head_dim": 128, "value_head_dim": 128, "intermediate_size": 1392},
    }
