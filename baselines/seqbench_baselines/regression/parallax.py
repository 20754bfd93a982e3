"""The plugin `parallax`."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from seqbench.contracts import Classification, setting
from seqbench.errors import RequestError
from seqbench.mixers import MixerPlugin
from seqbench_baselines.regression.attention import RegressionAttention, RegressionAttentionSettings
from seqbench_kernels.covariance_attention import covariance_attention, covariance_attention_path, forward_flops


@dataclass(frozen=True)
class ParallaxSettings(RegressionAttentionSettings):
    """Of attention and its probes."""

    num_key_value_heads: int = setting(2, "key/value heads; divides the query heads", minimum=1)
    qkv_bias: bool = setting(False, "whether the projections of queries, probes, keys and values have biases")
    window: int = setting(0, "tokens that attention sees, the query's own included; 0 for all earlier ones", minimum=0)


class Parallax(RegressionAttention):
    """o = sum_s p_s v_s - Cov_p(v, r . k), p the softmax of q . k / sqrt(head_dim), r a second query, unscaled."""

    settings_class = ParallaxSettings
    queries = "qr"

    @classmethod
    def has_biases(cls, settings: Any) -> bool:
        """As set."""
        return settings.qkv_bias

    @classmethod
    def key_heads(cls, settings: Any) -> int:
        """As set."""
        return settings.num_key_value_heads

    @classmethod
    def window_of(cls, settings: Any) -> int | None:
        """As set."""
        return settings.window or None

    def attend(self, queries: list[Tensor], key: Tensor, value: Tensor, prefix_valid: Tensor | None) -> Tensor:
        """Query and probe."""
        query, probe = queries
        return covariance_attention(query, probe, key, value, self.window_of(self.settings), prefix_valid)

    @classmethod
    def check(cls, settings: Any) -> None:
        """Raise RequestError for heads that cannot be shared or turned, and a window of the token alone."""
        super().check(settings)
        heads, shared = settings.num_heads, settings.num_key_value_heads
        if heads % shared:
            raise RequestError(f"num_heads ({heads}) must be a multiple of num_key_value_heads ({shared})")
        if settings.window == 1:
            raise RequestError("window=1 shows a token nothing but itself; take 2 or more, or 0 for all earlier tokens")

    @classmethod
    def flops(cls, settings: Any, length: int) -> int:
        """Linear maps, and the pairs inside the mask: two scores, one weighted sum."""
        maps = (3 * settings.num_heads + 2 * settings.num_key_value_heads) * settings.head_dim * settings.hidden_size
        pairs = forward_flops(length, length, settings.num_heads, settings.head_dim, cls.window_of(settings))
        return 2 * length * maps + pairs

    @classmethod
    def confounds(cls, settings: Any) -> dict[str, str]:
        """By which path it is computed."""
        return {"kernel path": covariance_attention_path("cpu"), **super().confounds(settings)}


class ParallaxPlugin(MixerPlugin):
    """Parallax (arXiv 2605.29157): softmax attention that a learned slope corrects, as local linear regression would.

    p = softmax of q . k / sqrt(head_dim) over earlier tokens, c = r . k without a scale, and o = sum p (1 + m - c) v
    with m the mean of c under p. Weights sum to 1 and may be negative; r = 0 is attention. r is turned by its position
    as q is. As in flash-linear-attention's layer. Its authors train it with Muon.
    """

    name = "parallax"
    summary = "decoder of attention with a learned slope, softmax less a covariance (Parallax; rotary positions)"
    version = "1"
    classification = Classification("2605.29157", 2026, memory=("growing",), written=("cache",))
    mixer = Parallax
    # One projection more than attention: narrower feed-forward layers make up for it.
    preset_settings = {  # noqa: RUF012
        "30m": {"num_heads": 7, "num_key_value_heads": 7, "head_dim": 64, "intermediate_size": 1088},
        "119m": {"num_heads": 14, "num_key_value_heads": 14, "head_dim": 64, "intermediate_size": 2144},
    }
