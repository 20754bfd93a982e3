"""The plugin `lightnet`."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqbench.contracts import Classification, setting
from seqbench.mixers import Chunk, MixerPlugin, Tree
from seqbench.nn import RMSNorm
from seqbench_baselines.linear_attention.frame import LinearAttentionMixer, LinearAttentionSettings

# Of the norm over what all heads read: the layer of flash-linear-attention does not pass its own epsilon on.
_READ_EPSILON = 1e-6
# The logarithm of the weights of no token at all; with it nothing overflows that minus infinity would.
_NOTHING = -1e30
# A decay of exp(-1000) is 0 in fp64: below it logarithms differ in nothing but the rounding of sums.
_LEAST_LOG_DECAY = -1e3


@dataclass(frozen=True)
class LightNetSettings(LinearAttentionSettings):
    """Of the memory and its gate."""

    gate_rank: int = setting(16, "rank of the output gate", minimum=1)


class LightNet(LinearAttentionMixer):
    """The memory is a mean over time of k v^T, by a softmax over time of each key channel.

    z_t = log of the sum of exp(k_s) up to t; S_t = diag(exp(z_(t-1) - z_t)) S_(t-1) + exp(k_t - z_t) v_t^T.
    """

    settings_class = LightNetSettings
    positions = ()

    def make_gate(self, values: int) -> None:
        """A gate of low rank, and one norm for all heads."""
        rank = self.settings.gate_rank
        self.g_proj = nn.Sequential(nn.Linear(self.hidden_size, rank, bias=False), nn.Linear(rank, values, bias=False))
        self.g_norm = RMSNorm(values, _READ_EPSILON)

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """The memory and the logarithm of the sum of its weights are carried on."""
        memory, before = (None, None) if state is None else state
        key = chunk.fill(self.k_proj(hidden).float(), _NOTHING)
        joined = key if before is None else torch.cat((before.unsqueeze(1).to(key.dtype), key), dim=1)
        sums = joined.logcumsumexp(dim=1)
        after = sums[:, joined.shape[1] - key.shape[1] :]
        # The first token's decay acts on nothing.
        earlier = torch.cat((after[:, :1], after[:, :-1]), dim=1) if before is None else sums[:, :-1]
        decay = (earlier - after).clamp(min=_LEAST_LOG_DECAY).unflatten(-1, (self.settings.num_heads, -1))
        weight = (key - after).exp()
        read, memory = self.recur(F.silu(self.q_proj(hidden)), weight, self.v_proj(hidden), decay, memory, chunk)
        output = self.g_norm(read.flatten(2)).to(hidden.dtype) * F.silu(self.g_proj(hidden))
        return self.o_proj(output), (memory, after[:, -1])


class LightNetPlugin(MixerPlugin):
    """LightNet (Qin et al., arXiv 2405.21022) in one dimension: linear attention that averages all the past.

    As in flash-linear-attention's layer: a softmax over time of each key channel, queries behind SiLU, one RMS norm
    over all heads, an output gate of low rank behind SiLU. Late tokens weigh about 1/t, unless keys grow. Here heads
    have a size of their own, where that layer divides the width by their number.
    """

    name = "lightnet"
    summary = "decoder of matrix memories that average the past, a softmax over time (LightNet; no positions)"
    version = "1"
    classification = Classification("2405.21022", 2024, memory=("matrix",), written=("decay",))
    mixer = LightNet
    preset_settings = {  # noqa: RUF012
        "30m": {"head_dim": 112, "value_head_dim": 112, "gate_rank": 112},
        "119m": {"num_heads": 7, "head_dim": 128, "value_head_dim": 128, "gate_rank": 128},
    }
