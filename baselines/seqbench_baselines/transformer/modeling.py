"""A pre-norm decoder on the harness's kit; a window turns it into the sliding-window baseline."""

from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from seqbench.nn import (
    STATE_NAMES,
    Attention,
    AttentionCache,
    BackboneOutput,
    CausalLanguageModel,
    ChunkPlan,
    DecodingSteps,
    RMSNorm,
    SwiGLU,
    advance,
    pack_rows,
    plan_chunk,
    refuse_state_with_checkpointing,
    rotary_tables,
)


class DecoderConfig(PreTrainedConfig):
    """Configuration of the decoder; `sliding_window` None is full causal attention in every layer."""

    model_type = "seqbench-decoder"
    keys_to_ignore_at_inference = STATE_NAMES

    vocab_size: int = 384
    hidden_size: int = 64
    intermediate_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 2
    num_key_value_heads: int = 2
    head_dim: int = 32
    rope_theta: float = 1e4
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = True
    sliding_window: int | None = None
    use_cache: bool = True


class DecoderLayer(GradientCheckpointingLayer):
    """Attention and SwiGLU, each with its own norm and residual."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        hidden, epsilon = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = RMSNorm(hidden, epsilon)
        self.self_attn = Attention(
            hidden,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            config.sliding_window,
            epsilon,
            config.attention_dropout,
        )
        self.post_attention_layernorm = RMSNorm(hidden, epsilon)
        self.mlp = SwiGLU(hidden, config.intermediate_size)

    def forward(
        self,
        hidden: Tensor,
        rotary: tuple[Tensor, Tensor],
        plan: ChunkPlan,
        cache: AttentionCache | None,
        layer_index: int,
    ) -> Tensor:
        """Map (batch, length, hidden_size) to the same shape."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), rotary, plan, cache, layer_index)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class DecoderBackbone(nn.Module):
    """Embedding, layers and final norm."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self._steps: DecodingSteps | None = None

    def empty_state(self) -> AttentionCache:
        """The cache before the first token."""
        return AttentionCache(window=self.config.sliding_window)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None, past_key_values: AttentionCache | None, use_cache: bool
    ) -> BackboneOutput:
        """Hidden states (batch, length, hidden_size) of a chunk; arguments as `CausalLanguageModel.forward`."""
        cache = past_key_values
        if cache is None and use_cache:
            cache = self.empty_state()
        if self.training and cache is not None:
            refuse_state_with_checkpointing(self.layers)
        batch, length = input_ids.shape
        packing = pack_rows(attention_mask, length)
        if packing is None and cache is not None:
            self._steps = self._steps or DecodingSteps(self, self.config.head_dim, self.config.rope_theta)
            stepped = self._steps.take(self, input_ids, cache)
            if stepped is not None:
                return BackboneOutput(last_hidden_state=stepped, past_key_values=cache)
        if packing is not None:
            input_ids = packing.pack(input_ids)
        attention = self.config._attn_implementation
        plan = plan_chunk(cache, batch, length, packing, input_ids.device, attention)
        rotary = rotary_tables(plan.positions, self.config.head_dim, self.config.rope_theta)
        hidden = self.embed_tokens(input_ids)
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, rotary, plan, cache, index)
        if cache is not None:
            advance(cache, plan, batch, length)
        hidden = self.norm(hidden)
        if packing is not None:
            hidden = packing.unpack(hidden)
        return BackboneOutput(last_hidden_state=hidden, past_key_values=cache)


class DecoderForCausalLM(CausalLanguageModel):
    """The decoder with a (tied) language-modelling head."""

    config_class = DecoderConfig
    config: DecoderConfig
    backbone_class = DecoderBackbone
    supports_gradient_checkpointing = True
    _no_split_modules = ["DecoderLayer"]  # noqa: RUF012 (transformers' own protocol)


AutoConfig.register("seqbench-decoder", DecoderConfig)
AutoModelForCausalLM.register(DecoderConfig, DecoderForCausalLM)
