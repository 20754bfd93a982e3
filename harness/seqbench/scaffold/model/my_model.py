"""my-model: a running mean per channel that each token may reset, a starting point for an idea of your own."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from seqbench.contracts import Ablation, setting
from seqbench.mixers import Chunk, Mixer, MixerPlugin, Tree, linear_recurrence


@dataclass(frozen=True)
class MyModelSettings:
    """What --set model.FIELD=VALUE can change, besides the settings of every decoder."""

    longest_memory: float = setting(64.0, "tokens that the slowest channel averages over at first", minimum=2)
    recurrent: bool = setting(True, "whether channels keep anything of the past")


class GatedRecurrence(Mixer[MyModelSettings]):
    """h_t = f_t h_{t-1} + (1 - f_t) x_t; the token at hand chooses f_t, how much of the past is kept."""

    settings_class = MyModelSettings

    def __init__(self, hidden_size: int, settings: MyModelSettings) -> None:
        super().__init__(hidden_size, settings)
        self.forget, self.inputs, self.gate, self.out = (
            nn.Linear(hidden_size, hidden_size, bias=False) for _ in range(4)
        )
        self.forget_bias = nn.Parameter(torch.empty(hidden_size))

    def initialise(self) -> None:
        """A mean over n tokens keeps 1 - 1/n, the sigmoid of log(n - 1): n from 2 to longest_memory."""
        averaged = torch.logspace(1, math.log2(self.settings.longest_memory), self.hidden_size, base=2)
        init.copy_(self.forget_bias, (averaged - 1).log())

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """What the layer adds, and its memory after each row's last token: padding keeps all and adds nothing."""
        keep = torch.sigmoid(self.forget(hidden) + self.forget_bias)
        added = chunk.fill((1 - keep) * self.inputs(hidden), 0.0)
        keep = chunk.fill(keep * self.settings.recurrent, 1.0)
        memory = linear_recurrence(keep, added, state)
        return self.out(memory * F.silu(self.gate(hidden))), memory[:, -1]

    @classmethod
    def reach(cls, settings: MyModelSettings) -> int | None:
        """How many tokens back a layer looks: None for all of them."""
        return None if settings.recurrent else 0


class MyModelPlugin(MixerPlugin):
    """A decoder of gated recurrences: running means that forget as fast as each token says."""

    name, summary, version = "my-model", "decoder of running means that each token may reset", "1"
    mixer = GatedRecurrence
    ablations = {"no-recurrence": Ablation("every token sees itself alone", {"recurrent": False}, at_evaluation=True)}
