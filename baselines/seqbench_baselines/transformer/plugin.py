"""The plugins `transformer` and `sliding-window`: one decoder, without and with a window."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from seqbench.contracts import Classification, Flops, ModelPlugin, WidthAxis, setting
from seqbench.nn import (
    DecoderSettings,
    at_width,
    attention_state_bytes,
    decoder_flops,
    decoder_parameter_group,
    shared_fields,
)
from seqbench_baselines.transformer.modeling import DecoderConfig, DecoderForCausalLM

# About 30 and 119 million parameters with a byte vocabulary; 12 layers as PMNet's published models.
_30M: dict[str, Any] = {
    "hidden_size": 448,
    "intermediate_size": 1216,
    "num_attention_heads": 7,
    "num_key_value_heads": 7,
}
_119M: dict[str, Any] = {
    "hidden_size": 896,
    "intermediate_size": 2432,
    "num_attention_heads": 14,
    "num_key_value_heads": 14,
}
_LARGE: dict[str, Any] = {"num_hidden_layers": 12, "head_dim": 64, "rope_theta": 1e6}


@dataclass(frozen=True)
class SlidingWindowSettings(DecoderSettings):
    """A decoder whose attention sees a window in every layer."""

    sliding_window: int = setting(4, "tokens that attention sees, the query's own included, in every layer", minimum=2)


class TransformerPlugin(ModelPlugin[DecoderSettings]):
    """Decoder with full causal attention."""

    name = "transformer"
    summary = "decoder transformer with full causal attention (rotary positions, RMSNorm, SwiGLU)"
    version = "1"
    classification = Classification("1706.03762", 2017, memory=("growing",), written=("cache",))
    config_class: ClassVar[type] = DecoderSettings
    presets: ClassVar[Mapping[str, DecoderSettings]] = {
        "tiny": DecoderSettings(),
        "30m": DecoderSettings(**_30M, **_LARGE),
        "119m": DecoderSettings(**_119M, **_LARGE),
    }
    width_axis = WidthAxis("hidden_size", 8)
    fine_axis = WidthAxis("intermediate_size", 1)

    def build(self, config: DecoderSettings) -> DecoderForCausalLM:
        """A freshly initialised decoder."""
        fields = shared_fields(config)
        return DecoderForCausalLM(DecoderConfig(**fields, sliding_window=self._window(config)))  # type: ignore[arg-type]

    def with_vocabulary(self, config: DecoderSettings, vocab_size: int) -> DecoderSettings:
        """`config` with the task's vocabulary size."""
        return dataclasses.replace(config, vocab_size=vocab_size)

    def with_width(self, config: DecoderSettings, width: int) -> DecoderSettings:
        """`at_width`: the SwiGLU in proportion, heads as they are."""
        return at_width(config, width)

    def parameter_group(self, parameter_name: str) -> str:
        """The group "embedding", "attention", "mlp" or "norm"."""
        return decoder_parameter_group(parameter_name)

    def flops(self, config: DecoderSettings, sequence_length: int) -> Flops:
        """Attention counts the query-key pairs inside the mask."""
        return Flops(decoder_flops(config, sequence_length, self._window(config)))

    def state_bytes(self, config: DecoderSettings, sequence_length: int) -> int:
        """The key/value cache: one place per token, or the window."""
        return attention_state_bytes(config, sequence_length, self._window(config))

    def attention_reach(self, config: DecoderSettings) -> int | None:
        """Layers x (window - 1); None for full attention."""
        window = self._window(config)
        return None if window is None else config.num_hidden_layers * (window - 1)

    def receptive_field(self, config: DecoderSettings) -> int | None:
        """The attention reach and the token itself; None for full attention."""
        reach = self.attention_reach(config)
        return None if reach is None else reach + 1

    def confounds(self, config: DecoderSettings) -> dict[str, str]:
        """What decides rankings besides the mixer."""
        window = self._window(config)
        path = "scaled_dot_product_attention" if window is None else "blockwise window attention"
        return {
            "short convolution": "none",
            "position encoding": f"rotary, theta {config.rope_theta:g}",
            "depth": f"{config.num_hidden_layers} layers",
            "feed-forward": "swiglu",
            "norm": "rms, before each part",
            "initialisation": f"normal, deviation {config.initializer_range:g}",
            "kernel path": path,
        }

    def _window(self, config: DecoderSettings) -> int | None:
        """Tokens that attention sees; None for all."""
        del config
        return None


class SlidingWindowPlugin(TransformerPlugin):
    """The same decoder with a window in every layer: PMNet without its memory."""

    name = "sliding-window"
    summary = "the same decoder with sliding-window attention in every layer (PMNet's backbone)"
    classification = Classification("2004.05150", 2020, memory=("window",), written=("cache",))
    config_class = SlidingWindowSettings
    presets: ClassVar[Mapping[str, DecoderSettings]] = {
        "tiny": SlidingWindowSettings(),
        "30m": SlidingWindowSettings(**_30M, **_LARGE, sliding_window=128),
        "119m": SlidingWindowSettings(**_119M, **_LARGE, sliding_window=128),
    }

    def _window(self, config: DecoderSettings) -> int | None:
        assert isinstance(config, SlidingWindowSettings)
        return config.sliding_window
