"""The plugin `local-linear-attention`."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seqbench.contracts import Classification, setting
from seqbench.mixers import MixerPlugin
from seqbench_baselines.regression.attention import RegressionAttention, RegressionAttentionSettings
from seqbench_kernels.covariance_attention.reference import hidden_pairs
from seqbench_kernels.ridge_solves.symmetric import solve_symmetric


@dataclass(frozen=True)
class LocalLinearSettings(RegressionAttentionSettings):
    """Of attention and its slope."""

    ridge: float = setting(
        0.1, "what holds slopes back, beside a total weight of 1; a large one leaves attention", minimum=1e-4
    )


def local_linear_attention(
    query: Tensor, key: Tensor, value: Tensor, ridge: float, prefix_valid: Tensor | None = None
) -> Tensor:
    """The intercept at each query of a ridge regression of values on keys, weighed by softmax attention.

    Of sum_s p_s |v_s - o - B (k_s - q)|^2 + ridge |B|^2 the minimum has o = sum_s p_s v_s - Cov_p(v, y . k) with
    y = (Cov_p(k, k) + ridge)^(-1) (mean_p k - q): attention whose probe is solved for.

    Args:
        query: (batch, heads, length, size); scores are divided by the root of the size.
        key: (batch, heads, total, size), whose last `length` places are the queries' own.
        value: of the same shape.
        ridge: above 0; not on the intercept.
        prefix_valid: (batch, total - length) bool, which earlier places hold a token; None if all do.

    Returns:
        (batch, heads, length, size). Memory grows with the square of the length, and with length x size^2.
    """
    length, total, size = query.shape[2], key.shape[2], key.shape[3]
    hidden = hidden_pairs(length, total, None, prefix_valid, 0, length, 0, total, key.device)
    scores = (query @ key.mT) * size**-0.5
    weights = scores.masked_fill(hidden, -torch.inf).softmax(dim=-1)
    mean = weights @ key
    products = weights @ (key.unsqueeze(-1) * key.unsqueeze(-2)).flatten(3)
    covariance = products.unflatten(3, (size, size)) - mean.unsqueeze(-1) * mean.unsqueeze(-2)
    system = covariance + ridge * torch.eye(size, dtype=key.dtype, device=key.device)
    along = solve_symmetric(system, mean - query) @ key.mT
    centred = (weights * along).sum(dim=-1, keepdim=True) - along
    return (weights * (1 + centred)) @ value


class LocalLinearAttention(RegressionAttention):
    """`local_linear_attention` over all earlier tokens, with rotary positions."""

    settings_class = LocalLinearSettings

    def attend(self, queries: list[Tensor], key: Tensor, value: Tensor, prefix_valid: Tensor | None) -> Tensor:
        """In fp32, under autocast too: covariances are differences."""
        # The device on which costs are counted knows no autocast.
        with nullcontext() if key.is_meta else torch.autocast(key.device.type, enabled=False):
            return local_linear_attention(queries[0], key, value, self.settings.ridge, prefix_valid)

    @classmethod
    def confounds(cls, settings: Any) -> dict[str, str]:
        """That its cost is one for small sizes."""
        path = "torch operations: all pairs of tokens, and a system of head_dim equations a token"
        return {"kernel path": path, **super().confounds(settings)}


class LocalLinearAttentionPlugin(MixerPlugin):
    """Local linear attention (Zuo et al., arXiv 2510.01450): regression of values on keys around every query.

    Softmax attention is the best constant under its weights, this is the best linear function, read at the query. No
    code of its authors was at hand: the ridge stands beside weights that sum to 1, which is our reading, as are a plain
    decoder, rotary positions, and a ridge that is not learned. For small sizes: time and memory grow with the square of
    the length, and a pair of tokens costs about half its head's size times what it does in
    attention.
    """

    name = "local-linear-attention"
    summary = "decoder of attention by local linear regression, exact and quadratic (LLA; rotary positions)"
    version = "1"
    classification = Classification("2510.01450", 2025, memory=("growing",), written=("cache", "solve"))
    mixer = LocalLinearAttention
    # Every pair is computed, and so counted, those behind the mask too.
    counts_masked_products = True
    preset_settings = {  # noqa: RUF012
        "tiny": {"num_heads": 4, "head_dim": 16},
        "30m": {"num_heads": 14, "head_dim": 32, "intermediate_size": 1216},
        "119m": {"num_heads": 28, "head_dim": 32, "intermediate_size": 2432},
    }
