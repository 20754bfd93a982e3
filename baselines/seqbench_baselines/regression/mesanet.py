"""The plugin `mesanet`."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from seqbench.contracts import Classification, setting
from seqbench.mixers import Chunk, MixerPlugin
from seqbench.nn import rms_norm
from seqbench_baselines.regression.recurrent import RecurrentRegression, RecurrentRegressionSettings
from seqbench_kernels.decayed_linear_attention import decayed_linear_attention
from seqbench_kernels.ridge_solves import ridge_solves

# Added to the sum of squares of queries and keys, inside the root.
_LENGTH_EPSILON = 1e-6
# No channel's ridge is smaller; at first all are 1.
_LEAST_RIDGE = 0.25


@dataclass(frozen=True)
class MesaNetSettings(RecurrentRegressionSettings):
    """Of the memories and their gate."""

    output_gate: bool = setting(False, "whether the output is multiplied by SiLU of a projection of the input")


class MesaNet(RecurrentRegression):
    """o = U^T (H + ridge)^(-1) q, with a learned ridge per channel, solved exactly; k and q have length 1."""

    settings_class = MesaNetSettings
    convolved = "qk"

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.a_proj, self.b_proj = (nn.Linear(hidden_size, settings.num_heads) for _ in range(2))
        self.lambda_params = nn.Parameter(torch.empty(self.q_proj.out_features))
        if settings.output_gate:
            self.g_proj = nn.Linear(hidden_size, self.q_proj.out_features, bias=False)

    def initialise(self) -> None:
        """Ridges of 1."""
        init.constant_(self.lambda_params, math.log(math.expm1(1 - _LEAST_RIDGE)))

    @classmethod
    def iterations_of(cls, settings: Any) -> int:
        """Exact."""
        del settings
        return 0

    def regress(
        self, heads: tuple[Tensor, Tensor, Tensor], hidden: Tensor, memories: tuple[Tensor, Tensor] | None, chunk: Chunk
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Padding neither fades nor writes."""
        query, key = (_unit(tensor) for tensor in heads[:2])
        log_decay = chunk.fill(F.logsigmoid(self.a_proj(hidden).float()), 0.0)
        strength = chunk.fill(self.b_proj(hidden).float().sigmoid(), 0.0)
        ridge = (F.softplus(self.lambda_params.float()) + _LEAST_RIDGE).unflatten(0, (self.settings.num_heads, -1))
        keys_before, values_before = memories or (None, None)
        solved, of_keys = ridge_solves(query, key, log_decay, strength, ridge, initial_state=keys_before)
        written = strength.unsqueeze(-1) * key
        read, of_values = decayed_linear_attention(solved, written, heads[2], log_decay, values_before)
        return read, (of_keys, of_values)

    def gated(self, read: Tensor, hidden: Tensor) -> Tensor:
        """By SiLU of a projection, where one is set."""
        return read * F.silu(self.g_proj(hidden)) if self.settings.output_gate else read


def _unit(tensor: Tensor) -> Tensor:
    """Of length 1 over the last axis."""
    size = tensor.shape[-1]
    # Over the root of the sum of squares, as a norm over their mean.
    return rms_norm(tensor, tensor.new_full((size,), size**-0.5), _LENGTH_EPSILON / size)


class MesaNetPlugin(MixerPlugin):
    """MesaNet (von Oswald et al., arXiv 2506.05233): reads by the ridge regression of all values on all keys.

    H = exp(g) H + b k k^T, U = exp(g) U + b k v^T and o = U^T (H + diag(ridge))^(-1) q, as in flash-linear-attention's
    layer, whose 30 steps of conjugate gradients are an exact solve here (Cholesky), forward and backward; they differ
    by up to 3e-3.
    """

    name = "mesanet"
    summary = "decoder of fading matrix memories, read by exact ridge regression (MesaNet; short convolution)"
    version = "1"
    classification = Classification("2506.05233", 2025, memory=("matrix",), written=("decay", "solve"))
    mixer = MesaNet
    # In heads of 64 and 128, as wide in all as the model.
    preset_settings = {  # noqa: RUF012
        "30m": {"num_heads": 7, "head_dim": 64},
        "119m": {"num_heads": 7, "head_dim": 128},
    }
