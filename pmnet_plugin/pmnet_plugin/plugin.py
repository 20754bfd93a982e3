"""PMNet as a plugin of the harness: settings, presets, accounting."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from transformers import PreTrainedModel

from pmnet_plugin.configuration import PMNetConfig
from pmnet_plugin.diagnostics import diagnose
from pmnet_plugin.modeling import PMNetForCausalLM
from pmnet_plugin.settings import PMNetSettings
from seqbench.contracts import Ablation, Batch, Classification, Flops, Measurement, ModelPlugin, WidthAxis
from seqbench.nn import (
    DecoderSettings,
    at_width,
    attention_state_bytes,
    decoder_flops,
    decoder_parameter_group,
    shared_fields,
)

# Columns of the paper (arXiv 2605.13370), see the parameter counts in tests/pmnet.
_PUBLISHED = PMNetSettings(
    hidden_size=512,
    intermediate_size=1024,
    num_hidden_layers=12,
    num_attention_heads=12,
    num_key_value_heads=12,
    head_dim=64,
    rope_theta=1e6,
    sliding_window=128,
    memory_write_period=3,
    num_memory=4,
    memory_size=512,
    num_memory_read_heads=4,
)


def _without_anchors(summary: str, levels: str) -> Ablation:
    return Ablation(summary, {"zeroed_anchors": levels}, in_training=False, at_evaluation=True)


class PMNetPlugin(ModelPlugin[PMNetSettings]):
    """The Phasor Memory Network (Goo, Yun, Jung, arXiv 2605.13370)."""

    name = "pmnet"
    summary = "Phasor Memory Network: sliding-window decoder with a routed tree of phase-valued memory"
    version = "2"
    classification = Classification("2605.13370", 2026, memory=("slots",), written=("route",))
    config_class = PMNetSettings
    presets: ClassVar[Mapping[str, PMNetSettings]] = {
        "tiny": PMNetSettings(),
        "30m": dataclasses.replace(_PUBLISHED, hidden_size=384, memory_size=32),
        "119m": _PUBLISHED,
    }
    width_axis = WidthAxis("hidden_size", 8)
    fine_axis = WidthAxis("intermediate_size", 1)
    ablations: ClassVar[Mapping[str, Ablation]] = {
        "no-memory": Ablation("neither write nor read: the sliding-window backbone alone", {"use_memory": False}),
        "no-recurrence": Ablation(
            "nothing is summed over earlier tokens", {"memory_cumsum": False}, at_evaluation=True
        ),
        "no-root-anchors": _without_anchors("the root's learned anchors count as zero", "root"),
        "no-leaf-anchors": _without_anchors("the last level's learned anchors count as zero", "leaf"),
        "no-anchors": _without_anchors("all learned anchors count as zero", "all"),
        "flat-memory": Ablation("one group per level instead of a routed tree", {"memory_tree": "flat"}),
        "non-unitary": Ablation("complex sums with a free magnitude instead of phases", {"memory_dynamics": "relaxed"}),
        "gradient-scale-none": Ablation("increments get their whole gradient", {"gradient_scale": "none"}),
    }

    def build(self, config: PMNetSettings) -> PMNetForCausalLM:
        """A freshly initialised PMNet."""
        own = {field.name for field in dataclasses.fields(PMNetSettings)} - {
            field.name for field in dataclasses.fields(DecoderSettings)
        }
        fields: dict[str, Any] = {**shared_fields(config), **{name: getattr(config, name) for name in own}}
        return PMNetForCausalLM(PMNetConfig(**fields, bos_token_id=None, eos_token_id=None))

    def with_vocabulary(self, config: PMNetSettings, vocab_size: int) -> PMNetSettings:
        """`config` with the task's vocabulary size."""
        return dataclasses.replace(config, vocab_size=vocab_size)

    def with_width(self, config: PMNetSettings, width: int) -> PMNetSettings:
        """`at_width`: the SwiGLU in proportion, heads and memory as they are."""
        return at_width(config, width)

    def parameter_group(self, parameter_name: str) -> str:
        """Backbone groups, and "memory write", "memory read" and "memory anchors"."""
        if "memory_embeddings" in parameter_name:
            return "memory anchors"
        if "memory_write_module" in parameter_name:
            return "memory write"
        if "memory_read_module" in parameter_name:
            return "memory read"
        return decoder_parameter_group(parameter_name)

    def matrix_parts(self, config: PMNetSettings, parameter_name: str) -> Sequence[int] | None:
        """Keys and values of the memory read apart; anchors are tables of angles."""
        if "memory_embeddings" in parameter_name:
            return ()
        width = config.num_memory_read_heads * config.memory_size
        return (width, width) if parameter_name.endswith(".proj_kv.weight") else None

    def flops(self, config: PMNetSettings, sequence_length: int) -> Flops:
        """Backbone, write and read; phase scores, softmax and scan are elementwise and not counted."""
        forward = decoder_flops(config, sequence_length, config.sliding_window)
        if config.use_memory:
            forward["memory write"] = self._write_flops(config, sequence_length)
            forward["memory read"] = self._read_flops(config, sequence_length)
        return Flops(forward)

    def state_bytes(self, config: PMNetSettings, sequence_length: int) -> int:
        """The attention window and the tables of all groups, constant in the length.

        An angle takes 4 bytes; a relaxed one two numbers of 8, see docs/decisions.md.
        """
        attention = attention_state_bytes(config, sequence_length, config.sliding_window)
        if not (config.use_memory and config.memory_cumsum):
            return attention
        groups = sum(config.groups_at(level) for level in range(config.hierarchy_depth))
        bytes_per_angle = 4 if config.memory_dynamics == "unitary" else 16
        return attention + bytes_per_angle * groups * config.num_memory * config.memory_size

    def attention_reach(self, config: PMNetSettings) -> int | None:
        """Layers x (window - 1): what attention alone can bridge."""
        return config.num_hidden_layers * (config.sliding_window - 1)

    def receptive_field(self, config: PMNetSettings) -> int | None:
        """Unbounded through the memory; without its recurrence, the attention reach and the token itself."""
        if config.use_memory and config.memory_cumsum:
            return None
        return config.num_hidden_layers * (config.sliding_window - 1) + 1

    def confounds(self, config: PMNetSettings) -> dict[str, str]:
        """What decides rankings besides the mixer."""
        scan = "fixed-point phase scan" if config.memory_dynamics == "unitary" else "fp64 grouped sum"
        return {
            "short convolution": "none",
            "position encoding": f"rotary, theta {config.rope_theta:g}",
            "depth": f"{config.num_hidden_layers} layers",
            "feed-forward": "swiglu",
            "norm": "rms, before each part",
            "initialisation": f"normal, deviation {config.initializer_range:g}",
            "kernel path": f"torch operations; blockwise window attention, {scan}",
        }

    def diagnose(self, model: PreTrainedModel, batch: Batch) -> Sequence[Measurement]:
        """Routing, phase spread and the reach of gradients; see `pmnet_plugin.diagnostics.diagnose`."""
        return diagnose(cast(PMNetForCausalLM, model), batch)

    @staticmethod
    def _write_flops(config: PMNetSettings, length: int) -> int:
        hidden, angles, slots = config.hidden_size, config.memory_size, config.num_memory
        levels = config.hierarchy_depth
        to_increments = 1 if config.memory_dynamics == "unitary" else 2
        per_token = 2 * hidden * angles + to_increments * angles * angles
        keys = slots * 2 * angles * angles
        # Before the first write all tokens share the root's anchors, so its keys are projected once.
        return 2 * (levels * length * per_token + ((levels - 1) * length + 1) * keys)

    @staticmethod
    def _read_flops(config: PMNetSettings, length: int) -> int:
        hidden, angles, slots = config.hidden_size, config.memory_size, config.num_memory
        heads = config.num_memory_read_heads
        queries_and_output = 2 * hidden * heads * angles
        keys = slots * 2 * angles * heads * angles
        mix_and_values = heads * slots * 2 * angles + heads * 2 * angles * angles
        return 2 * config.num_hidden_layers * length * (queries_and_output + keys + mix_and_values)
