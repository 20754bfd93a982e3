"""The plugins `linear-attention`, `simple-gla`, `retnet` and `gla`: one frame, and a decay each."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqbench.contracts import Classification, setting
from seqbench.mixers import Chunk, MixerPlugin, Tree, causal_taps
from seqbench_baselines.linear_attention.frame import LinearAttentionMixer, LinearAttentionSettings

# flash-linear-attention's layers divide the logarithm of a gate by it: at first a token keeps exp(-0.043) of the past.
_GATE_NORMALIZER = 16
# As wide in all as the model.
_FOUR_HEADS = {"30m": {"head_dim": 112, "value_head_dim": 112}, "119m": {"head_dim": 224, "value_head_dim": 224}}


class LinearAttention(LinearAttentionMixer):
    """Nothing fades."""

    def log_decay(self, hidden: Tensor) -> None:
        """None."""


class LinearAttentionPlugin(MixerPlugin):
    """Linear attention (Katharopoulos et al., arXiv 2006.16236) in the frame of its decaying successors.

    S_t = S_(t-1) + k v^T, o_t = S_t^T q / sqrt(head_dim), and out(norm(o) SiLU(gate)). Our reading: without the paper's
    feature map and normaliser, so that it differs from retnet, simple-gla and gla in the decay alone.
    """

    name = "linear-attention"
    summary = "decoder of matrix memories that only add (linear attention; no positions)"
    version = "1"
    classification = Classification("2006.16236", 2020, memory=("matrix",))
    mixer = LinearAttention
    preset_settings = _FOUR_HEADS


class SimpleGLA(LinearAttentionMixer):
    """One decay per head and token, the sigmoid of a projection, to the power 1/16; short convolutions, then SiLU."""

    short_convolution_inside = True
    defaults = {"short_convolution": 4}  # noqa: RUF012

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.gk_proj = nn.Linear(hidden_size, settings.num_heads)
        taps, projections = settings.short_convolution, (self.q_proj, self.k_proj, self.v_proj)
        if taps > 0:
            self.q_conv1d, self.k_conv1d, self.v_conv1d = (
                nn.Conv1d(size, size, taps, groups=size, bias=False)
                for size in (projection.out_features for projection in projections)
            )

    def log_decay(self, hidden: Tensor) -> Tensor:
        """(batch, length, heads)."""
        return F.logsigmoid(self.gk_proj(hidden).float()) / _GATE_NORMALIZER

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """The inputs that the convolutions reach back to are carried on too."""
        memory, before = (None, None) if state is None else state
        inputs = torch.cat((self.q_proj(hidden), self.k_proj(hidden), self.v_proj(hidden)), dim=-1)
        convolved, after = self._convolved(inputs, before, chunk)
        keys, values = self.q_proj.out_features, self.v_proj.out_features
        query, key, value = F.silu(convolved).split([keys, keys, values], dim=-1)
        read, memory = self.recur(query, key, value, self.log_decay(hidden), memory, chunk)
        return self.gated(read, hidden), (memory, after)

    def _convolved(self, inputs: Tensor, before: Tensor | None, chunk: Chunk) -> tuple[Tensor, Tensor | None]:
        taps = self.settings.short_convolution
        if taps == 0:
            return inputs, None
        weight = torch.cat([layer.weight.squeeze(1) for layer in (self.q_conv1d, self.k_conv1d, self.v_conv1d)])
        return causal_taps(inputs, before, weight.to(inputs.dtype)), chunk.newest(inputs, before, taps - 1)


class SimpleGLAPlugin(MixerPlugin):
    """Gated linear attention with one decay per head (after Yang et al., arXiv 2312.06635, section 4.4, and Mamba-2).

    S_t = d S_(t-1) + k v^T with d the sigmoid of a projection to the power 1/16, o_t = S_t^T q / sqrt(head_dim), and
    out(norm(o) SiLU(gate)); q, k and v behind a short convolution and SiLU. As in flash-linear-attention's layer.
    """

    name = "simple-gla"
    summary = "decoder of matrix memories with one gated decay per head (simple GLA; short convolution, no positions)"
    version = "1"
    classification = Classification("2312.06635", 2023, memory=("matrix",), written=("decay",))
    mixer = SimpleGLA
    preset_settings = _FOUR_HEADS


class Retention(LinearAttentionMixer):
    """A constant decay per head, 1 - 2^(-5 - h) for head h, and rotary positions."""

    defaults = {"position_encoding": "rotary"}  # noqa: RUF012

    def log_decay(self, hidden: Tensor) -> Tensor:
        """(batch, length, heads), the same for every token."""
        head = torch.arange(self.settings.num_heads, device=hidden.device)
        decay = torch.log1p(-torch.exp2(-5.0 - head.double())).float()
        return decay.expand(*hidden.shape[:2], -1)


class RetNetPlugin(MixerPlugin):
    """RetNet (Sun et al., arXiv 2307.08621): retention, linear attention with a constant decay per head.

    S_t = (1 - 2^(-5 - h)) S_(t-1) + k v^T in head h, o_t = S_t^T q / sqrt(head_dim), and out(norm(o) SiLU(gate)). As in
    flash-linear-attention's layer: rotary positions on q and k, and an RMS norm per head where the paper has a group
    norm.
    """

    name = "retnet"
    summary = "decoder of matrix memories with constant decays (RetNet; rotary positions)"
    version = "1"
    classification = Classification("2307.08621", 2023, memory=("matrix",), written=("decay",))
    mixer = Retention
    # Values are twice as wide as keys: narrower feed-forward layers make up for it.
    preset_settings = {  # noqa: RUF012
        "tiny": {"num_heads": 8, "head_dim": 8},
        "30m": {"num_heads": 8, "head_dim": 56, "value_head_dim": 112, "intermediate_size": 736},
        "119m": {"num_heads": 8, "head_dim": 112, "value_head_dim": 224, "intermediate_size": 1880},
    }


@dataclass(frozen=True)
class GLASettings(LinearAttentionSettings):
    """Of the memory and its decay."""

    head_dim: int = setting(8, "size of a query or key: rows of a head's memory", minimum=1)
    gate_rank: int = setting(16, "rank of the map from a token to its decays", minimum=1)


class GatedLinearAttention(LinearAttentionMixer):
    """A decay per key channel and token, the sigmoid of a map of low rank, to the power 1/16."""

    settings_class = GLASettings

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        rank, keys = settings.gate_rank, self.k_proj.out_features
        self.gk_proj = nn.Sequential(nn.Linear(hidden_size, rank, bias=False), nn.Linear(rank, keys))

    def log_decay(self, hidden: Tensor) -> Tensor:
        """(batch, length, heads, head_dim)."""
        decay = F.logsigmoid(self.gk_proj(hidden).float()) / _GATE_NORMALIZER
        return decay.unflatten(-1, (self.settings.num_heads, -1))


class GLAPlugin(MixerPlugin):
    """Gated linear attention (Yang et al., arXiv 2312.06635): a matrix per head whose rows fade, each at its own rate.

    S_t = diag(d) S_(t-1) + k v^T with d the sigmoid of a map of low rank to the power 1/16, o_t = S_t^T q /
    sqrt(head_dim), and out(norm(o) SiLU(gate)). As in flash-linear-attention's layer; keys half as wide as values.
    """

    name = "gla"
    summary = "decoder of matrix memories with a gated decay per key channel (GLA; no positions)"
    version = "1"
    classification = Classification("2312.06635", 2023, memory=("matrix",), written=("decay",))
    mixer = GatedLinearAttention
    preset_settings = {  # noqa: RUF012
        "30m": {"head_dim": 56, "value_head_dim": 112},
        "119m": {"head_dim": 112, "value_head_dim": 224},
    }
