"""A mixer of one's own: a running mean per channel that each token may reset."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from seqbench.contracts import setting
from seqbench.mixers import Chunk, Mixer, MixerPlugin, Tree, linear_recurrence


@dataclass(frozen=True)
class RecurrenceSettings:
    """Of the recurrence."""

    longest_memory: float = setting(64.0, "tokens that the slowest channel averages over at first", minimum=2)


class GatedRecurrence(Mixer[Any]):
    """h_t = f_t h_{t-1} + (1 - f_t) x_t; the token at hand chooses f_t, how much of the past is kept."""

    settings_class = RecurrenceSettings

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.in_proj = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
        self.out_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.forget_bias = nn.Parameter(torch.empty(hidden_size))

    def initialise(self) -> None:
        """A mean over n tokens keeps 1 - 1/n, the sigmoid of log(n - 1): n from 2 to longest_memory."""
        averaged = torch.logspace(1, math.log2(self.settings.longest_memory), self.hidden_size, base=2)
        init.copy_(self.forget_bias, (averaged - 1).log())

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """Padding keeps everything and adds nothing."""
        forget, inputs = self.in_proj(hidden).chunk(2, dim=-1)
        keep = torch.sigmoid(forget + self.forget_bias)
        added, keep = chunk.fill((1 - keep) * inputs, 0.0), chunk.fill(keep, 1.0)
        memory = linear_recurrence(keep, added, state)
        return self.out_proj(memory.to(hidden.dtype)), memory[:, -1]


class OwnRecurrence(MixerPlugin):
    """A decoder of gated recurrences."""

    name, summary, version = "own-recurrence", "decoder of running means that each token may reset", "1"
    mixer = GatedRecurrence
