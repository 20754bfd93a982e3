"""The plugin `kda`."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from seqbench.contracts import Classification, setting
from seqbench.mixers import MixerPlugin
from seqbench_baselines.delta_rule.memories import FIRST_DECAYS, DeltaRuleSettings, initial_decays
from seqbench_baselines.delta_rule.mixer import DeltaRuleMixer


@dataclass(frozen=True)
class KimiDeltaAttentionSettings(DeltaRuleSettings):
    """Of the memory and its decay."""

    log_decay_floor: float = setting(0.0, "floor of the log decay of a token; 0 for none", minimum=-5.0, maximum=0.0)


class KimiDeltaAttention(DeltaRuleMixer):
    """The delta rule with a decay per channel of the keys and a sigmoid gate, both from bottlenecks of a value's size.

    g = -exp(A_log) softplus(f x + dt_bias) or, with a floor, g = floor x sigmoid(exp(A_log) (f x + dt_bias)).
    """

    settings_class = KimiDeltaAttentionSettings
    first_decays = FIRST_DECAYS.format(1)
    decay_per_channel = True

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        rank, channels = settings.value_head_dim, self.value_heads * settings.head_dim
        self.f_proj = nn.Sequential(nn.Linear(hidden_size, rank, bias=False), nn.Linear(rank, channels, bias=False))
        self.A_log = nn.Parameter(torch.empty(self.value_heads))
        self.dt_bias = nn.Parameter(torch.empty(channels))
        self.g_proj = nn.Sequential(nn.Linear(hidden_size, rank, bias=False), nn.Linear(rank, self.values, bias=True))

    def initialise(self) -> None:
        """A from 1 to 16; 1 where there is a floor."""
        initial_decays(self.A_log, self.dt_bias, slowest=1.0)
        if self.settings.log_decay_floor < 0:
            init.zeros_(self.A_log)

    def log_decay(self, hidden: Tensor) -> Tensor:
        """One per value head and channel of the keys."""
        raw = (self.f_proj(hidden).float() + self.dt_bias.float()).unflatten(-1, (self.value_heads, -1))
        rate = self.A_log.float().exp().unsqueeze(-1)
        floor = self.settings.log_decay_floor
        return floor * (rate * raw).sigmoid() if floor < 0 else -rate * F.softplus(raw)

    def gate(self, hidden: Tensor) -> Tensor:
        """Sigmoid of a bottleneck."""
        return self.g_proj(hidden).sigmoid()


class KimiDeltaAttentionPlugin(MixerPlugin):
    """Kimi Delta Attention (arXiv 2510.26692): Gated DeltaNet with a decay of its own for every channel of the keys.

    S <- diag(exp g) S, u = b (v - S^T k), S_t = S + k u^T, o_t = S_t^T q_t. As in flash-linear-attention's layer, whose
    gate has a bias. Kimi Linear puts one layer of full attention behind three of these; here all layers are alike.
    """

    name = "kda"
    summary = "decoder of matrix memories with a decay per channel, written by the delta rule (Kimi Delta Attention)"
    version = "1"
    classification = Classification("2510.26692", 2025, memory=("matrix",), written=("decay", "delta"))
    mixer = KimiDeltaAttention
    # Feed-forward layers as wide as brings a preset to the size of transformer's.
    preset_settings = {  # noqa: RUF012
        "30m": {"num_heads": 7, "head_dim": 64, "value_head_dim": 64, "intermediate_size": 1120},
        "119m": {"num_heads": 7, "head_dim": 128, "value_head_dim": 128, "intermediate_size": 2256},
    }
