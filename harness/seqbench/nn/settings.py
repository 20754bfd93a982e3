"""Settings and accounting of the decoder kit's backbone, shared by every model that is built on it."""

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

from seqbench.contracts import check_settings, setting
from seqbench.errors import RequestError

# Layers, ten times as many as the deepest decoder that was published; above that a number is mistyped.
LARGEST_DEPTH = 10_000


@dataclass(frozen=True)
class DecoderSettings:
    """Shape of a pre-norm decoder: attention with rotary positions and a SwiGLU per layer, RMSNorm, tied embedding."""

    vocab_size: int = setting(384, "token ids; follows from the task in a run", minimum=1)
    hidden_size: int = setting(64, "size of the residual stream", minimum=1)
    intermediate_size: int = setting(128, "width of the SwiGLU", minimum=1)
    num_hidden_layers: int = setting(4, "layers", minimum=1, maximum=LARGEST_DEPTH)
    num_attention_heads: int = setting(2, "query heads", minimum=1)
    num_key_value_heads: int = setting(2, "key/value heads; divides the query heads", minimum=1)
    head_dim: int = setting(32, "size of a head, even; heads x size may differ from the hidden size", minimum=2)
    rope_theta: float = setting(1e4, "base of the rotary wavelengths", minimum=1)
    rms_norm_eps: float = setting(1e-6, "epsilon of the norms", minimum=0)
    initializer_range: float = setting(0.02, "standard deviation of initial weights", minimum=0)
    attention_dropout: float = setting(0.0, "share of attention weights dropped in training", minimum=0, maximum=0.99)
    tie_word_embeddings: bool = setting(True, "whether the head shares the embedding's weights")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.num_attention_heads % self.num_key_value_heads:
            raise RequestError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of num_key_value_heads"
                f" ({self.num_key_value_heads})"
            )
        if self.head_dim % 2:
            raise RequestError(f"head_dim must be even for rotary positions, not {self.head_dim}")


Decoder = TypeVar("Decoder", bound=DecoderSettings)


def attended_pairs(length: int, window: int | None) -> int:
    """Query-key pairs inside a causal mask of `window` tokens (None: all earlier ones) over `length` tokens."""
    width = length if window is None else min(window, length)
    return width * (width + 1) // 2 + (length - width) * width


def attention_flops(settings: Any, length: int, pairs: int) -> int:
    """Forward FLOPs of one attention layer for one sequence: projections, and that many query-key pairs of all heads.

    2 per multiply-accumulate. `settings` has hidden_size, num_attention_heads, num_key_value_heads and head_dim.
    """
    heads = 2 * settings.num_attention_heads + 2 * settings.num_key_value_heads
    return 2 * settings.head_dim * (length * settings.hidden_size * heads + 2 * pairs)


def decoder_flops(settings: DecoderSettings, length: int, window: int | None) -> dict[str, int]:
    """Forward matrix-multiplication FLOPs of the backbone for one sequence, by component.

    2 per multiply-accumulate; attention counts the query-key pairs inside the mask.
    """
    hidden, layers = settings.hidden_size, settings.num_hidden_layers
    pairs = settings.num_attention_heads * attended_pairs(length, window)
    return {
        "attention": layers * attention_flops(settings, length, pairs),
        "mlp": 2 * layers * length * 3 * hidden * settings.intermediate_size,
        "head": 2 * length * hidden * settings.vocab_size,
    }


def attention_state_bytes(settings: DecoderSettings, length: int, window: int | None) -> int:
    """Bytes of one sequence's attention cache after `length` tokens in fp32: keys, values, validity, tokens seen.

    A windowed cache holds its window - 1 places from the first token on.
    """
    places = length if window is None else window - 1
    per_place = 2 * settings.num_hidden_layers * settings.num_key_value_heads * settings.head_dim * 4
    validity, seen = places, 8
    return places * per_place + validity + seen


def at_width(settings: Decoder, hidden_size: int) -> Decoder:
    """The same decoder at another hidden size; the SwiGLU grows in proportion, heads and their size stay."""
    intermediate = max(1, round(settings.intermediate_size * hidden_size / settings.hidden_size))
    return dataclasses.replace(settings, hidden_size=hidden_size, intermediate_size=intermediate)


def decoder_parameter_group(parameter_name: str) -> str:
    """Accounting group of a parameter of the backbone by its name."""
    if "embed_tokens" in parameter_name or "lm_head" in parameter_name:
        return "embedding"
    if ".self_attn." in parameter_name:
        return "attention"
    return "mlp" if ".mlp." in parameter_name else "norm"


def shared_fields(settings: DecoderSettings) -> dict[str, object]:
    """The backbone's fields as keyword arguments of a Hugging Face config."""
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(DecoderSettings)}
