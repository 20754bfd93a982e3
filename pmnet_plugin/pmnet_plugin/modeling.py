"""PMNet as Hugging Face models: a sliding-window decoder that reads and writes a memory tree."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel, initialization
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from pmnet_plugin.cache import PMNetCache
from pmnet_plugin.configuration import PMNetConfig
from pmnet_plugin.memory import MemoryRead, MemoryStream, MemoryWrite
from seqbench.nn import (
    Attention,
    ChunkPlan,
    RMSNorm,
    SwiGLU,
    advance,
    pack_rows,
    plan_chunk,
    rotary_tables,
)
from seqbench_kernels.phase_scores import phasor


@dataclass
class PMNetOutput(BaseModelOutputWithPast):
    """Hidden states, cache, and on request the routing: per write layer the next group of each token, (B, T) int64."""

    next_groups: tuple[Tensor, ...] | None = None


@dataclass
class PMNetCausalLMOutput(CausalLMOutputWithPast):
    """Logits, cache, and on request the routing: per write layer the next group of each token, (B, T) int64."""

    next_groups: tuple[Tensor, ...] | None = None


class PMNetLayer(nn.Module):
    """Attention, write (in layers i with i mod P = 0), read, feed-forward; each with its own norm and residual."""

    def __init__(self, config: PMNetConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.level = index // config.memory_write_period
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
        writes = config.use_memory and index % config.memory_write_period == 0
        self.memory_write_module = MemoryWrite(config) if writes else None
        self.memory_read_module = MemoryRead(config) if config.use_memory else None
        self.post_attention_layernorm = RMSNorm(hidden, epsilon)
        self.mlp = SwiGLU(hidden, config.intermediate_size)


class PMNetPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation shared by the PMNet classes."""

    config_class = PMNetConfig
    config: PMNetConfig
    base_model_prefix = "model"
    _no_split_modules = ["PMNetLayer"]  # noqa: RUF012 (transformers' own protocol)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # transformers passes over modules that own no parameter themselves, so the anchors are met at their list.
        if isinstance(module, nn.ParameterList):
            for anchors in module:
                initialization.normal_(anchors, mean=0.0, std=self.config.initializer_range)


class PMNetModel(PMNetPreTrainedModel):
    """The decoder without its head."""

    def __init__(self, config: PMNetConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        levels = config.hierarchy_depth if config.use_memory else 0
        self.memory_embeddings = nn.ParameterList(
            nn.Parameter(torch.empty(config.groups_at(level), config.num_memory, config.memory_size))
            for level in range(levels)
        )
        self.layers = nn.ModuleList(PMNetLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: PMNetCache | None = None,
        use_cache: bool = False,
        output_routing: bool = False,
        **_: Any,
    ) -> PMNetOutput:
        """Run a chunk of tokens.

        Args:
            input_ids: (B, T) int64.
            attention_mask: (B, at least T), zero for padding, which influences nothing.
            past_key_values: the state after earlier chunks; it is continued and updated in place.
            use_cache: return a state that continues this chunk.
            output_routing: also return the groups that the tokens are routed to.
        """
        batch, length = input_ids.shape
        packing = pack_rows(attention_mask, length)
        if packing is not None:
            input_ids = packing.pack(input_ids)
        cache = past_key_values
        if cache is None and use_cache:
            cache = PMNetCache(window=self.config.sliding_window)
        plan = plan_chunk(cache, batch, length, packing, input_ids.device)
        real = None if packing is None else packing.mask
        hidden, routing = self._run_layers(self.embed_tokens(input_ids), plan, cache, real)
        if cache is not None:
            advance(cache, plan, batch, length)
        hidden = self.norm(hidden)
        if packing is not None:
            hidden = packing.unpack(hidden)
            routing = [packing.unpack(groups) for groups in routing] if output_routing else []
        return PMNetOutput(
            last_hidden_state=hidden,
            past_key_values=cache,  # type: ignore[arg-type]  # not built on transformers' layer-wise Cache
            next_groups=tuple(routing) if output_routing else None,
        )

    def _run_layers(
        self, hidden: Tensor, plan: ChunkPlan, cache: PMNetCache | None, real: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        rotary = rotary_tables(plan.positions, self.config.head_dim, self.config.rope_theta)
        stream, routing, tables = MemoryStream(), [], []
        carried = cache.tables if cache is not None else []
        slots: Tensor | None = None
        next_group: Tensor | None = None
        for layer in cast(Iterable[PMNetLayer], self.layers):
            normalised = layer.input_layernorm(hidden)
            hidden = hidden + layer.self_attn(normalised, rotary, plan, cache, layer.index)
            if layer.memory_write_module is not None:
                stream = MemoryStream(stream.phases, next_group)
                anchors = self.memory_embeddings[layer.level]
                table = carried[layer.level] if carried else None
                stream, table, next_group = layer.memory_write_module(hidden, stream, anchors, table, real)
                routing.append(next_group)
                if table is not None:
                    tables.append(table)
                # Shared by all layers of the level: they read the same phases at the same anchors.
                slots = phasor(stream.angles(anchors))
            if layer.memory_read_module is not None:
                hidden = hidden + layer.memory_read_module(hidden, slots)
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        if cache is not None:
            cache.tables = tables
        return hidden, routing


class PMNetForCausalLM(PMNetPreTrainedModel):
    """PMNet with a (tied) language-modelling head."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 (transformers' own protocol)

    def __init__(self, config: PMNetConfig) -> None:
        super().__init__(config)
        self.model = PMNetModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: PMNetCache | None = None,
        use_cache: bool = False,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        output_routing: bool = False,
        **_: Any,
    ) -> PMNetCausalLMOutput:
        """Logits (B, T, vocab_size), or of the last `logits_to_keep` positions when that is not zero.

        `labels` (B, T) equal to input_ids, -100 where there is no loss, are shifted inside; the loss is the mean over
        the predicted tokens. The other arguments as `PMNetModel.forward`.
        """
        output = self.model(input_ids, attention_mask, past_key_values, use_cache, output_routing)
        logits = self.lm_head(output.last_hidden_state[:, -logits_to_keep:])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size)
        return PMNetCausalLMOutput(
            loss=loss, logits=logits, past_key_values=output.past_key_values, next_groups=output.next_groups
        )


AutoConfig.register("PMNet", PMNetConfig)
AutoModel.register(PMNetConfig, PMNetModel)
AutoModelForCausalLM.register(PMNetConfig, PMNetForCausalLM)
