"""PMNet as Hugging Face models: a sliding-window decoder that reads and writes a memory tree."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, initialization
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from pmnet_plugin.cache import PMNetCache
from pmnet_plugin.configuration import PMNetConfig
from pmnet_plugin.decoding import PMNetSteps
from pmnet_plugin.memory import MemoryRead, MemoryWrite
from pmnet_plugin.relaxed import RelaxedMemoryWrite
from seqbench.nn import (
    Attention,
    CausalLanguageModel,
    ChunkPlan,
    DecoderPreTrainedModel,
    RMSNorm,
    StateUnderBothNames,
    SwiGLU,
    advance,
    pack_rows,
    plan_chunk,
    refuse_state_with_checkpointing,
    rotary_tables,
    transformers_call,
)


@dataclass
class _RoutedOutput(BaseModelOutputWithPast):
    next_groups: tuple[Tensor, ...] | None = None


class PMNetOutput(StateUnderBothNames, _RoutedOutput):
    """Hidden states, cache, and on request the routing: per write layer the next group of each token, (B, T) int64."""


@dataclass
class _RoutedCausalLMOutput(CausalLMOutputWithPast):
    next_groups: tuple[Tensor, ...] | None = None


class PMNetCausalLMOutput(StateUnderBothNames, _RoutedCausalLMOutput):
    """Logits, cache, and on request the routing: per write layer the next group of each token, (B, T) int64."""


class PMNetLayer(GradientCheckpointingLayer):
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
        write_class = RelaxedMemoryWrite if config.memory_dynamics == "relaxed" else MemoryWrite
        self.memory_write_module = write_class(config) if writes else None
        self.memory_read_module = MemoryRead(config) if config.use_memory else None
        self.post_attention_layernorm = RMSNorm(hidden, epsilon)
        self.mlp = SwiGLU(hidden, config.intermediate_size)

    def forward(
        self,
        hidden: Tensor,
        phases: Tensor | None,
        slots: Tensor | None,
        group: Tensor | None,
        anchors: Tensor | None,
        table: Tensor | None,
        real: Tensor | None,
        rotary: tuple[Tensor, Tensor],
        plan: ChunkPlan,
        cache: PMNetCache | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """Run one layer.

        Args:
            hidden: (B, T, hidden_size).
            phases: m, (B, T, N, M) fp32 radians, or None before the first write.
            slots: what the level's write left for its reads, (B, T, N, 2M); a layer that writes makes its own.
            group: as `MemoryWrite.forward`, like the next three; of no use to a layer that does not write.
            anchors: the level's own.
            table: the level's own.
            real: which tokens are no padding.
            rotary: cosines and sines of the tokens' positions.
            plan: how the chunk meets the cache.
            cache: its attention part is read and updated, the tables are not.

        Returns:
            hidden, phases and slots for the next layer; of a layer that writes also the next group and the table.
        """
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), rotary, plan, cache, self.index)
        next_group: Tensor | None = None
        if self.memory_write_module is not None:
            written = self.memory_write_module(hidden, phases, group, anchors, table, real)
            phases, slots, table, next_group = written
        if self.memory_read_module is not None:
            hidden = hidden + self.memory_read_module(hidden, slots)
        hidden = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return hidden, phases, slots, next_group, table


class PMNetPreTrainedModel(DecoderPreTrainedModel):
    """Loading, saving and initialisation shared by the PMNet classes."""

    config_class = PMNetConfig
    config: PMNetConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
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

    # A checkpoint of the whole language model is one of the decoder too.
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]  # noqa: RUF012 (transformers' own protocol)

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
        self._steps: PMNetSteps | None = None

    def empty_state(self) -> PMNetCache:
        """The state before the first token."""
        return PMNetCache(window=self.config.sliding_window)

    @transformers_call
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: PMNetCache | None = None,
        use_cache: bool = False,
        output_routing: bool = False,
    ) -> PMNetOutput:
        """Run a chunk of tokens.

        Args:
            input_ids: (B, T) int64.
            attention_mask: (B, at least T), zero for padding, which influences nothing.
            past_key_values: the state after earlier chunks, which may be named `cache` too; it is continued and updated
                in place.
            use_cache: return a state that continues this chunk.
            output_routing: also return the groups that the tokens are routed to.
        """
        if self.training and (use_cache or past_key_values is not None):
            refuse_state_with_checkpointing(self.layers)
        batch, length = input_ids.shape
        packing = pack_rows(attention_mask, length)
        if packing is None and past_key_values is not None and not output_routing:
            self._steps = self._steps or PMNetSteps(self, self.config)
            stepped = self._steps.take(self, input_ids, past_key_values)
            if stepped is not None:
                return PMNetOutput(last_hidden_state=stepped, past_key_values=past_key_values)
        if packing is not None:
            input_ids = packing.pack(input_ids)
        cache = past_key_values
        if cache is None and use_cache:
            cache = self.empty_state()
        attention = self.config._attn_implementation
        plan = plan_chunk(cache, batch, length, packing, input_ids.device, attention)
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
            past_key_values=cache,
            next_groups=tuple(routing) if output_routing else None,
        )

    def _run_layers(
        self, hidden: Tensor, plan: ChunkPlan, cache: PMNetCache | None, real: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """The last layer's output, and per write layer the next group of each token; the cache's tables are renewed."""
        rotary = rotary_tables(plan.positions, self.config.head_dim, self.config.rope_theta)
        carried = cache.tables if cache is not None else []
        routing, tables = [], []
        phases: Tensor | None = None
        slots: Tensor | None = None
        next_group: Tensor | None = None
        for layer in cast(Iterable[PMNetLayer], self.layers):
            group, anchors, table = next_group, None, None
            writes = layer.memory_write_module is not None
            if writes:
                anchors = self.anchors(layer.level)
                table = carried[layer.level] if carried else None
            hidden, phases, slots, chosen, table = layer(
                hidden, phases, slots, group, anchors, table, real, rotary, plan, cache
            )
            if writes:
                next_group = chosen
                routing += [] if chosen is None else [chosen]
                tables += [] if table is None else [table]
        if cache is not None:
            cache.tables = tables
        return hidden, routing

    def anchors(self, level: int) -> Tensor:
        """E of a level, (groups, N, M); zero where the ablations of the anchors have it so."""
        anchors = self.memory_embeddings[level]
        zeroed = self.config.zeroed_anchors
        root, leaf = level == 0, level == len(self.memory_embeddings) - 1
        if zeroed == "all" or (zeroed == "root" and root) or (zeroed == "leaf" and leaf):
            return torch.zeros_like(anchors)
        return anchors


class PMNetForCausalLM(CausalLanguageModel, PMNetPreTrainedModel):
    """PMNet with a (tied) language-modelling head."""

    backbone_class = PMNetModel

    @transformers_call
    def forward(  # type: ignore[override]  # with an argument of its own
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: PMNetCache | None = None,
        use_cache: bool = False,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        output_routing: bool = False,
    ) -> PMNetCausalLMOutput:
        """As `CausalCall.forward` has it; `output_routing` as `PMNetModel.forward`."""
        output = self.model(input_ids, attention_mask, past_key_values, use_cache, output_routing)
        return PMNetCausalLMOutput(**self.predict(output, labels, logits_to_keep), next_groups=output.next_groups)


AutoConfig.register("PMNet", PMNetConfig)
AutoModel.register(PMNetConfig, PMNetModel)
AutoModelForCausalLM.register(PMNetConfig, PMNetForCausalLM)
