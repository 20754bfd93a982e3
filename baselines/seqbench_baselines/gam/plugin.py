"""The plugin `gam`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from seqbench.contracts import Classification, setting
from seqbench.mixers import Chunk, Mixer, MixerPlugin, Tree, causal_taps


@dataclass(frozen=True)
class GAMSettings:
    """Of the two ways through a layer."""

    num_slots: int = setting(64, "rows of the memory bank, which no token writes", minimum=1)
    conv_size: int = setting(3, "taps of the causal convolution per channel", minimum=2)


class GatedAssociativeMemory(Mixer[Any]):
    """sigmoid(g) conv(h) + sigmoid(g') softmax(h M^T) M, gates g and g' of h; M are parameters."""

    settings_class = GAMSettings
    defaults = {"norm": "layer", "norm_epsilon": 1e-5}  # noqa: RUF012 (a class-level constant of the contract)
    parameter_groups = {"memory_bank": "memory bank"}  # noqa: RUF012

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.causal_conv = nn.Conv1d(hidden_size, hidden_size, settings.conv_size, groups=hidden_size)
        self.memory_bank = nn.Parameter(torch.empty(settings.num_slots, hidden_size))
        self.gate = nn.Linear(hidden_size, 2 * hidden_size)

    def initialise(self) -> None:
        """As published: the bank Xavier-uniform, convolution and gate as torch begins them."""
        slots, size = self.memory_bank.shape
        bound = (6 / (slots + size)) ** 0.5
        init.uniform_(self.memory_bank, -bound, bound)
        for module, inputs in ((self.causal_conv, self.settings.conv_size), (self.gate, size)):
            for parameter in module.parameters():
                init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5)

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """The newest inputs, which the convolution reaches back to, are all that is carried on."""
        reach = self.settings.conv_size - 1
        taps, bias = self.causal_conv.weight.squeeze(1).to(hidden.dtype), self.causal_conv.bias
        assert bias is not None
        local = causal_taps(hidden, state, taps, bias.to(hidden.dtype))
        found = F.linear(F.linear(hidden, self.memory_bank).softmax(dim=-1), self.memory_bank.t())
        by_local, by_found = self.gate(hidden).sigmoid().chunk(2, dim=-1)
        return by_local * local + by_found * found, chunk.newest(hidden, state, reach)

    @classmethod
    def reach(cls, settings: Any) -> int:
        """That of the convolution: the bank knows nothing of other tokens."""
        return settings.conv_size - 1

    @classmethod
    def matrix_parts(cls, settings: Any, parameter_name: str) -> Sequence[int] | None:
        """The bank is a table; the gates are two maps."""
        if parameter_name == "memory_bank":
            return ()
        return (settings.hidden_size, settings.hidden_size) if parameter_name == "gate.weight" else None

    @classmethod
    def confounds(cls, settings: Any) -> dict[str, str]:
        """What the convolution is for, and where first values are from."""
        return {
            "short convolution": f"{settings.conv_size} taps per channel, half of the mixer"
            + (f"; {settings.short_convolution} before it" if settings.short_convolution else ""),
            "initialisation": f"normal, deviation {settings.initializer_range:g}; mixers as torch has them",
        }


class GAMPlugin(MixerPlugin):
    """Gated associative memory (GAM, github.com/rishiraj/gam), a negative control: no token writes its memory.

    y = sigmoid(g) conv(h) + sigmoid(g') softmax(h M^T) M: a causal convolution of three taps, and a lookup in a bank M
    of parameters. What a token sees of others is two tokens a layer, 2 L + 1 in all, so that no recall across a longer
    gap is possible. Our reading: in the kit's decoder, as it stands without learned positions and dropout, and with
    SwiGLU where the published feed-forward layers are GELU.
    """

    name = "gam"
    summary = "decoder of short convolutions and a bank of parameters: sees 2 tokens a layer (GAM; negative control)"
    version = "1"
    classification = Classification(None, 2025, memory=("window",), written=("cache",))
    mixer = GatedAssociativeMemory
    preset_settings = {"30m": {"num_slots": 448}, "119m": {"num_slots": 512}}  # noqa: RUF012
