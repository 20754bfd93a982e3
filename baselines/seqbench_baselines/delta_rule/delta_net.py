"""The plugin `delta-net`."""

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from seqbench.contracts import Classification, setting
from seqbench.mixers import MixerPlugin
from seqbench_baselines.delta_rule.memories import DeltaRuleSettings
from seqbench_baselines.delta_rule.mixer import DeltaRuleMixer


@dataclass(frozen=True)
class DeltaNetSettings(DeltaRuleSettings):
    """Of the memory and its gate."""

    output_gate: bool = setting(False, "whether the output is multiplied by SiLU of a projection of the input")


class DeltaNet(DeltaRuleMixer):
    """The delta rule without decay; the gate is an option."""

    settings_class = DeltaNetSettings

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        if settings.output_gate:
            self.g_proj = nn.Linear(hidden_size, self.values, bias=False)

    def log_decay(self, hidden: Tensor) -> None:
        """Nothing fades."""

    def gate(self, hidden: Tensor) -> Tensor | None:
        """As the settings say."""
        return F.silu(self.g_proj(hidden)) if self.settings.output_gate else None


class DeltaNetPlugin(MixerPlugin):
    """DeltaNet (Yang et al., arXiv 2406.06484): a matrix per head in which each token corrects what its key recalls.

    S_t = (I - b k k^T) S_(t-1) + b k v^T, o_t = S_t^T q_t, with k and q of length 1 and b the sigmoid of a projection.
    As in flash-linear-attention's layer, without its options of other activations and norms; heads have a size of their
    own, where that layer divides the width by their number.
    """

    name = "delta-net"
    summary = "decoder of matrix memories, written by the delta rule (DeltaNet; short convolution, no positions)"
    version = "1"
    classification = Classification("2406.06484", 2024, memory=("matrix",), written=("delta",))
    mixer = DeltaNet
    # Feed-forward layers as wide as brings a preset to the size of transformer's.
    preset_settings = {  # noqa: RUF012
        "30m": {"num_heads": 7, "head_dim": 64, "value_head_dim": 64, "intermediate_size": 1208},
        "119m": {"num_heads": 7, "head_dim": 128, "value_head_dim": 128, "intermediate_size": 2424},
    }
