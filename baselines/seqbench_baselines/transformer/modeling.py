"""A pre-norm decoder on the harness's kit; a window turns it into the sliding-window baseline."""

from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from seqbench.nn import (
    Attention,
    AttentionCache,
    ChunkPlan,
    RMSNorm,
    SwiGLU,
    advance,
    pack_rows,
    plan_chunk,
    rotary_tables,
)


class DecoderConfig(PreTrainedConfig):
    """Configuration of the decoder; `sliding_window` None is full causal attention in every layer."""

    model_type = "seqbench-decoder"
    keys_to_ignore_at_inference = ("past_key_values",)

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


class DecoderLayer(nn.Module):
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

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None, cache: AttentionCache | None) -> Tensor:
        """Hidden states (batch, length, hidden_size) of a chunk that continues `cache`, which is updated in place."""
        batch, length = input_ids.shape
        packing = pack_rows(attention_mask, length)
        if packing is not None:
            input_ids = packing.pack(input_ids)
        plan = plan_chunk(cache, batch, length, packing, input_ids.device)
        rotary = rotary_tables(plan.positions, self.config.head_dim, self.config.rope_theta)
        hidden = self.embed_tokens(input_ids)
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, rotary, plan, cache, index)
        if cache is not None:
            advance(cache, plan, batch, length)
        hidden = self.norm(hidden)
        return hidden if packing is None else packing.unpack(hidden)


class DecoderForCausalLM(PreTrainedModel):
    """The decoder with a (tied) language-modelling head."""

    config_class = DecoderConfig
    config: DecoderConfig
    base_model_prefix = "model"
    _no_split_modules = ["DecoderLayer"]  # noqa: RUF012 (transformers' own protocol)
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 (transformers' own protocol)

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        self.model = DecoderBackbone(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: AttentionCache | None = None,
        use_cache: bool = False,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (batch, length, vocab_size), or of the last `logits_to_keep` positions when that is not zero.

        `labels` (batch, length) equal to input_ids, -100 where there is no loss, are shifted inside.
        """
        cache = past_key_values
        if cache is None and use_cache:
            cache = AttentionCache(window=self.config.sliding_window)
        hidden = self.model(input_ids, attention_mask, cache)
        logits = self.lm_head(hidden[:, -logits_to_keep:])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size)
        # The cache is not built on transformers' layer-wise Cache.
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache)  # type: ignore[arg-type]


AutoConfig.register("seqbench-decoder", DecoderConfig)
AutoModelForCausalLM.register(DecoderConfig, DecoderForCausalLM)
