"""The plugins `transformer` and `sliding-window`: one decoder, without and with a window."""

from typing import Any

from torch import nn

from seqbench.contracts import Classification
from seqbench.mixers import Layout, MixerLayer, MixerPlugin, WindowState
from seqbench.nn import DecodingSteps
from seqbench_baselines.transformer.attention import Attention, WindowAttention

# About 30 and 119 million parameters with a byte vocabulary, on the kit's widths and its 12 layers.
_LARGE: dict[str, Any] = {"head_dim": 64, "rope_theta": 1e6}
_SIZES: dict[str, dict[str, Any]] = {
    "30m": {"intermediate_size": 1216, "num_attention_heads": 7, "num_key_value_heads": 7, **_LARGE},
    "119m": {"intermediate_size": 2432, "num_attention_heads": 14, "num_key_value_heads": 14, **_LARGE},
}


class AttentionLayer(MixerLayer):
    """The kit's layer, its parts named as decoders of transformers name them."""

    layout = Layout(mixer="self_attn", mixer_norm="input_layernorm", feed_forward_norm="post_attention_layernorm")


class TransformerPlugin(MixerPlugin):
    """Decoder with full causal attention."""

    name = "transformer"
    summary = "decoder transformer with full causal attention (rotary positions, RMSNorm, SwiGLU)"
    version = "2"
    classification = Classification("1706.03762", 2017, memory=("growing",), written=("cache",))
    mixer = Attention
    layer_class = AttentionLayer
    preset_settings = _SIZES


class SlidingWindowPlugin(MixerPlugin):
    """The same decoder with a window in every layer: PMNet without its memory."""

    name = "sliding-window"
    summary = "the same decoder with sliding-window attention in every layer (PMNet's backbone)"
    version = "2"
    classification = Classification("2004.05150", 2020, memory=("window",), written=("cache",))
    mixer = WindowAttention
    layer_class = AttentionLayer
    preset_settings = {name: {**size, "sliding_window": 128} for name, size in _SIZES.items()}  # noqa: RUF012

    @classmethod
    def empty_state(cls, settings: Any) -> WindowState:
        """The window of every layer."""
        return WindowState(window=settings.sliding_window)

    @classmethod
    def steps(cls, settings: Any, backbone: nn.Module) -> DecodingSteps | None:
        """Those of the decoder kit, for the decoder that they know."""
        known = {"position_encoding": "rotary", "feed_forward": "swiglu", "norm": "rms", "short_convolution": 0}
        if any(getattr(settings, name) != value for name, value in known.items()):
            return None
        return DecodingSteps(backbone, settings.head_dim, settings.rope_theta)

    def state_bytes(self, config: Any, sequence_length: int) -> int:
        """The window of every layer, and which of its places hold a token."""
        return super().state_bytes(config, sequence_length) + config.sliding_window - 1
