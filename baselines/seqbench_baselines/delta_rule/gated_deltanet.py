"""The plugin `gated-deltanet`."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqbench.contracts import Classification, setting
from seqbench.mixers import MixerPlugin
from seqbench_baselines.delta_rule.memories import FIRST_DECAYS, DeltaRuleSettings, fading, initial_decays
from seqbench_baselines.delta_rule.mixer import DeltaRuleMixer


@dataclass(frozen=True)
class GatedDeltaNetSettings(DeltaRuleSettings):
    """Of the memory, in the published proportions: keys of 3/4 of the width, values twice as large."""

    num_heads: int = setting(3, "heads of queries and keys", minimum=1)
    value_head_dim: int = setting(32, "size of a value: columns of a head's memory", minimum=1)


class GatedDeltaNet(DeltaRuleMixer):
    """The delta rule with one decay per head and token, g = -exp(A_log) softplus(a x + dt_bias), and a SiLU gate."""

    settings_class = GatedDeltaNetSettings
    first_decays = FIRST_DECAYS.format(0)

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.a_proj = nn.Linear(hidden_size, self.value_heads, bias=False)
        self.A_log = nn.Parameter(torch.empty(self.value_heads))
        self.dt_bias = nn.Parameter(torch.empty(self.value_heads))
        self.g_proj = nn.Linear(hidden_size, self.values, bias=False)

    def initialise(self) -> None:
        """A from 0 to 16."""
        initial_decays(self.A_log, self.dt_bias, slowest=0.0)

    def log_decay(self, hidden: Tensor) -> Tensor:
        """One per value head."""
        return fading(self.a_proj(hidden), self.A_log, self.dt_bias)

    def gate(self, hidden: Tensor) -> Tensor:
        """SiLU of a projection."""
        return F.silu(self.g_proj(hidden))


class GatedDeltaNetPlugin(MixerPlugin):
    """Gated DeltaNet (Yang, Kautz and Hatamizadeh, arXiv 2412.06464): the delta rule on a memory that also fades.

    S_t = exp(g) (I - b k k^T) S_(t-1) + b k v^T, o_t = S_t^T q_t: decay, then reading of what the key recalls, then
    writing of the error, then reading. As in flash-linear-attention's layer; the authors' own has a bias on b.
    """

    name = "gated-deltanet"
    summary = "decoder of fading matrix memories, written by the delta rule (Gated DeltaNet; short convolution)"
    version = "1"
    classification = Classification("2412.06464", 2024, memory=("matrix",), written=("decay", "delta"))
    mixer = GatedDeltaNet
    # Feed-forward layers as wide as brings a preset to the size of transformer's.
    preset_settings = {  # noqa: RUF012
        "30m": {"num_heads": 5, "head_dim": 64, "value_head_dim": 128, "intermediate_size": 952},
        "119m": {"num_heads": 5, "head_dim": 128, "value_head_dim": 256, "intermediate_size": 1912},
    }
