"""PMNet as a plugin of the harness: settings, presets, accounting."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pmnet_plugin.configuration import PMNetConfig
from pmnet_plugin.modeling import PMNetForCausalLM
from seqbench.contracts import Ablation, Flops, ModelPlugin, WidthAxis, setting
from seqbench.errors import RequestError
from seqbench.nn import (
    DecoderSettings,
    attention_state_bytes,
    decoder_flops,
    decoder_parameter_group,
    shared_fields,
)

# A tree of this many groups holds more state than any published model by a factor of a thousand.
_MOST_GROUPS = 4**9


@dataclass(frozen=True)
class PMNetSettings(DecoderSettings):
    """A sliding-window decoder with a routed tree of phase-valued memory."""

    sliding_window: int = setting(4, "tokens that attention sees, the query's own included, in every layer", minimum=2)
    memory_write_period: int = setting(1, "layers i with i mod period = 0 write to the memory", minimum=1)
    num_memory: int = setting(4, "slots per group, and branching factor of the tree", minimum=2)
    memory_size: int = setting(16, "phase angles per slot", minimum=1)
    num_memory_read_heads: int = setting(2, "read heads", minimum=1)
    use_memory: bool = setting(True, "false: no write and no read (ablation no-memory)")
    memory_cumsum: bool = setting(True, "false: nothing is summed over earlier tokens (ablation no-recurrence)")
    gradient_scale: str = setting(
        "sqrt-count",
        "sqrt-count divides the gradient of an increment by the root of its group's token count, as published",
        choices=("sqrt-count", "none"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        depth = -(-self.num_hidden_layers // self.memory_write_period)
        if self.use_memory and self.num_memory ** (depth - 1) > _MOST_GROUPS:
            raise RequestError(
                f"{depth} levels of branching {self.num_memory} make {self.num_memory ** (depth - 1):,} leaf groups, at"
                f" most {_MOST_GROUPS:,} are allowed; raise memory_write_period or lower num_memory"
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


class PMNetPlugin(ModelPlugin[PMNetSettings]):
    """The Phasor Memory Network (Goo, Yun, Jung, arXiv 2605.13370)."""

    name = "pmnet"
    summary = "Phasor Memory Network: sliding-window decoder with a routed tree of phase-valued memory"
    version = "1"
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

    def parameter_group(self, parameter_name: str) -> str:
        """Backbone groups, and "memory write", "memory read" and "memory anchors"."""
        if "memory_embeddings" in parameter_name:
            return "memory anchors"
        if "memory_write_module" in parameter_name:
            return "memory write"
        if "memory_read_module" in parameter_name:
            return "memory read"
        return decoder_parameter_group(parameter_name)

    def flops(self, config: PMNetSettings, sequence_length: int) -> Flops:
        """Backbone, write and read; phase scores, softmax and scan are elementwise and not counted."""
        forward = decoder_flops(config, sequence_length, config.sliding_window)
        if config.use_memory:
            forward["memory write"] = self._write_flops(config, sequence_length)
            forward["memory read"] = self._read_flops(config, sequence_length)
        return Flops(forward)

    def state_bytes(self, config: PMNetSettings, sequence_length: int) -> int:
        """The attention window and, at 4 bytes an angle, the phase tables of all groups; constant in the length."""
        attention = attention_state_bytes(config, sequence_length, config.sliding_window)
        if not (config.use_memory and config.memory_cumsum):
            return attention
        groups = sum(config.num_memory**level for level in range(self._levels(config)))
        return attention + 4 * groups * config.num_memory * config.memory_size

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
        return {
            "short convolution": "none",
            "position encoding": f"rotary, theta {config.rope_theta:g}",
            "depth": f"{config.num_hidden_layers} layers",
            "initialisation": f"normal, deviation {config.initializer_range:g}",
            "kernel path": "torch operations; blockwise window attention, fixed-point phase scan",
        }

    @staticmethod
    def _levels(config: PMNetSettings) -> int:
        return -(-config.num_hidden_layers // config.memory_write_period)

    def _write_flops(self, config: PMNetSettings, length: int) -> int:
        hidden, angles, slots = config.hidden_size, config.memory_size, config.num_memory
        per_token = 2 * hidden * angles + angles * angles
        keys = slots * 2 * angles * angles
        # Before the first write all tokens share the root's anchors, so its keys are projected once.
        return 2 * (self._levels(config) * length * per_token + ((self._levels(config) - 1) * length + 1) * keys)

    @staticmethod
    def _read_flops(config: PMNetSettings, length: int) -> int:
        hidden, angles, slots = config.hidden_size, config.memory_size, config.num_memory
        heads = config.num_memory_read_heads
        queries_and_output = 2 * hidden * heads * angles
        keys = slots * 2 * angles * heads * angles
        mix_and_values = heads * slots * 2 * angles + heads * 2 * angles * angles
        return 2 * config.num_hidden_layers * length * (queries_and_output + keys + mix_and_values)
