"""The plugin `gka`."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqbench.contracts import Classification, setting
from seqbench.mixers import Chunk, MixerPlugin
from seqbench_baselines.delta_rule.memories import initial_decays
from seqbench_baselines.regression.recurrent import RecurrentRegression, RecurrentRegressionSettings
from seqbench_kernels.decayed_linear_attention import decayed_linear_attention
from seqbench_kernels.ridge_solves import ridge_solves

# Added to lengths of queries and keys, outside the root, and to the write gate.
_EPSILON = 1e-6


@dataclass(frozen=True)
class GatedKalmaNetSettings(RecurrentRegressionSettings):
    """Of the memories and the solve."""

    iterations: int = setting(30, "Chebyshev steps of a solve", minimum=1)
    ridge: float = setting(0.02, "the ridge over the norm of the memory of keys", minimum=1e-4)


class GatedKalmaNet(RecurrentRegression):
    """x = (H + r |H|)^(-1) q by Chebyshev steps, o = U^T (q + a (x - q)) / sqrt(head_dim); gated keys and values."""

    settings_class = GatedKalmaNetSettings
    convolved = "qkv"

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.a_proj = nn.Linear(hidden_size, settings.num_heads, bias=False)
        self.b_proj, self.alpha_proj = (nn.Linear(hidden_size, settings.num_heads) for _ in range(2))
        self.A_log, self.dt_bias = (nn.Parameter(torch.empty(settings.num_heads)) for _ in range(2))
        self.g_proj = nn.Linear(hidden_size, self.q_proj.out_features, bias=False)

    def initialise(self) -> None:
        """A from 0 to 16."""
        initial_decays(self.A_log, self.dt_bias, slowest=0.0)

    @classmethod
    def iterations_of(cls, settings: Any) -> int:
        """As set."""
        return settings.iterations

    def regress(
        self, heads: tuple[Tensor, Tensor, Tensor], hidden: Tensor, memories: tuple[Tensor, Tensor] | None, chunk: Chunk
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The write gate scales key and value, and so stands in both memories as its square; padding has neither."""
        query, key = (tensor / (_length(tensor) + _EPSILON) for tensor in heads[:2])
        gate = self.b_proj(hidden).float().sigmoid() + _EPSILON
        strength = chunk.fill(gate.square(), 0.0)
        step = F.softplus(self.a_proj(hidden).float() + self.dt_bias.float())
        log_decay = chunk.fill(-self.A_log.float().exp() * step, 0.0)
        keys_before, values_before = memories or (None, None)
        solve = self.settings.ridge, self.settings.iterations
        solved, of_keys = ridge_solves(query, key, log_decay, strength, *solve, keys_before)
        share = self.alpha_proj(hidden).float().sigmoid().unsqueeze(-1)
        reading = (query + share * (solved - query)) * self.settings.head_dim**-0.5
        written = strength.unsqueeze(-1) * key
        read, of_values = decayed_linear_attention(reading, written, heads[2], log_decay, values_before)
        return read, (of_keys, of_values)

    def gated(self, read: Tensor, hidden: Tensor) -> Tensor:
        """By SiLU of a projection."""
        return read * F.silu(self.g_proj(hidden))


def _length(tensor: Tensor) -> Tensor:
    """Over the last axis, whose gradient at zero is zero."""
    return torch.linalg.vector_norm(tensor, dim=-1, keepdim=True)


class GatedKalmaNetPlugin(MixerPlugin):
    """Gated KalmaNet (arXiv 2511.21016): reads by a ridge regression that fades and is conditioned by its own norm.

    H = exp(g) H + b^2 k k^T, U = exp(g) U + b^2 k v^T, x = (H + r |H|)^(-1) q by 30 Chebyshev steps, and
    o = U^T (q + a (x - q)) / sqrt(head_dim), normalised and gated. The gradient of a solve is implicit, as in the
    authors' code: the same steps on the gradient, not a way back through the steps. Without their shared key heads.
    """

    name = "gka"
    summary = "decoder of fading matrix memories, read by damped ridge regression (Gated KalmaNet; short convolution)"
    version = "1"
    classification = Classification("2511.21016", 2025, memory=("matrix",), written=("decay", "solve"))
    mixer = GatedKalmaNet
    # In heads of 64 and 128, as wide in all as the model; the gate makes feed-forward layers narrower.
    preset_settings = {  # noqa: RUF012
        "30m": {"num_heads": 7, "head_dim": 64, "intermediate_size": 1200},
        "119m": {"num_heads": 7, "head_dim": 128, "intermediate_size": 2432},
    }
