"""A pre-norm decoder on the harness's kit whose layers mix tokens by a gated long convolution."""

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from seqbench.nn import (
    STATE_NAMES,
    BackboneOutput,
    CausalLanguageModel,
    RMSNorm,
    RowPacking,
    SwiGLU,
    pack_rows,
    refuse_state_with_checkpointing,
)
from seqbench_baselines.gated_convolution.cache import ConvolutionCache
from seqbench_baselines.gated_convolution.convolution import causal_convolution


class GatedConvolutionConfig(PreTrainedConfig):
    """Configuration of the decoder; `filter_length` is the number of taps of every filter."""

    model_type = "seqbench-gated-convolution"
    keys_to_ignore_at_inference = STATE_NAMES

    vocab_size: int = 384
    hidden_size: int = 64
    intermediate_size: int = 128
    num_hidden_layers: int = 4
    filter_length: int = 512
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    use_cache: bool = True


class GatedConvolution(nn.Module):
    """(u W + b1) * (h conv u + b2): BaseConv, the gated convolution of Zoology (arXiv 2312.04927, section 4).

    h holds one causal filter per channel, every tap of which is learned; the biases are one number per channel.
    """

    def __init__(self, hidden_size: int, filter_length: int) -> None:
        super().__init__()
        self.proj = nn.Linear(hidden_size, hidden_size)
        self.taps = nn.Parameter(torch.empty(hidden_size, filter_length))
        self.bias = nn.Parameter(torch.empty(hidden_size))

    def forward(
        self, hidden: Tensor, packing: RowPacking | None, cache: ConvolutionCache | None, layer_index: int
    ) -> Tensor:
        """Map (batch, length, hidden_size) to the same shape; the cache then holds this chunk too."""
        history = hidden[:, :0] if cache is None else cache.history(layer_index, hidden)
        if cache is not None:
            cache.store(layer_index, history, hidden, packing)
        convolved = causal_convolution(hidden, history, self.taps) + self.bias
        return self.proj(hidden) * convolved.to(hidden.dtype)


class GatedConvolutionLayer(GradientCheckpointingLayer):
    """Gated convolution and SwiGLU, each with its own norm and residual."""

    def __init__(self, config: GatedConvolutionConfig) -> None:
        super().__init__()
        hidden, epsilon = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = RMSNorm(hidden, epsilon)
        self.convolution = GatedConvolution(hidden, config.filter_length)
        self.post_convolution_layernorm = RMSNorm(hidden, epsilon)
        self.mlp = SwiGLU(hidden, config.intermediate_size)

    def forward(
        self, hidden: Tensor, packing: RowPacking | None, cache: ConvolutionCache | None, layer_index: int
    ) -> Tensor:
        """Map (batch, length, hidden_size) to the same shape."""
        hidden = hidden + self.convolution(self.input_layernorm(hidden), packing, cache, layer_index)
        return hidden + self.mlp(self.post_convolution_layernorm(hidden))


class GatedConvolutionBackbone(nn.Module):
    """Embedding, layers and final norm."""

    def __init__(self, config: GatedConvolutionConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(GatedConvolutionLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def empty_state(self) -> ConvolutionCache:
        """The cache before the first token."""
        return ConvolutionCache(self.config.filter_length - 1)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        past_key_values: ConvolutionCache | None,
        use_cache: bool,
    ) -> BackboneOutput:
        """Hidden states (batch, length, hidden_size) of a chunk; arguments as `CausalLanguageModel.forward`."""
        cache = past_key_values
        if cache is None and use_cache:
            cache = self.empty_state()
        if self.training and cache is not None:
            refuse_state_with_checkpointing(self.layers)
        packing = pack_rows(attention_mask, input_ids.shape[1])
        if packing is not None:
            input_ids = packing.pack(input_ids)
        hidden = self.embed_tokens(input_ids)
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, packing, cache, index)
        if cache is not None:
            cache.advance(input_ids, packing)
        hidden = self.norm(hidden)
        if packing is not None:
            hidden = packing.unpack(hidden)
        return BackboneOutput(last_hidden_state=hidden, past_key_values=cache)


class GatedConvolutionForCausalLM(CausalLanguageModel):
    """The decoder with a (tied) language-modelling head."""

    config_class = GatedConvolutionConfig
    config: GatedConvolutionConfig
    backbone_class = GatedConvolutionBackbone
    supports_gradient_checkpointing = True
    _no_split_modules = ["GatedConvolutionLayer"]  # noqa: RUF012 (transformers' own protocol)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, GatedConvolution):
            # As torch initialises a depthwise convolution of that length: uniform, of variance 1 / (3 x length).
            bound = self.config.filter_length**-0.5
            init.uniform_(module.taps, -bound, bound)
            init.zeros_(module.bias)


AutoConfig.register("seqbench-gated-convolution", GatedConvolutionConfig)
AutoModelForCausalLM.register(GatedConvolutionConfig, GatedConvolutionForCausalLM)
