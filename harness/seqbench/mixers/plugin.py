"""The model plugin that a mixer becomes."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from types import new_class
from typing import Any, ClassVar

from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from seqbench.contracts import Flops, ModelPlugin, WidthAxis
from seqbench.mixers.counting import layer_flops, layer_state_bytes
from seqbench.mixers.decoder import MixerConfig, MixerForCausalLM, MixerLayer, Steps, inputs_kept_before
from seqbench.mixers.mixer import Mixer
from seqbench.mixers.settings import LEARNED, settings_of
from seqbench.mixers.state import MixerState
from seqbench.nn import at_width

# Sizes of the presets: those of the decoders that were there before, of 4 and 12 layers.
_SHAPES: Mapping[str, Mapping[str, int]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4},
    "30m": {"hidden_size": 448, "intermediate_size": 1344, "num_hidden_layers": 12},
    "119m": {"hidden_size": 896, "intermediate_size": 3072, "num_hidden_layers": 12},
}
_FP32_BYTES = 4


class _Presets(Mapping[str, Any]):
    """The shapes above, as settings of one plugin; made when they are asked for."""

    def __init__(self, plugin: "type[MixerPlugin]") -> None:
        self._plugin = plugin

    def __getitem__(self, name: str) -> Any:
        settings_class: Any = self._plugin.config_class
        own = self._plugin.preset_settings
        if name not in _SHAPES and name not in own:
            raise KeyError(name)
        return settings_class(**{**_SHAPES.get(name, {}), **own.get(name, {})})

    def __contains__(self, name: object) -> bool:
        # Without making it, which may look other plugins up.
        return name in _SHAPES or name in self._plugin.preset_settings

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*_SHAPES, *self._plugin.preset_settings)))

    def __len__(self) -> int:
        return len(list(iter(self)))


class MixerPlugin(ModelPlugin[Any]):
    """A decoder around `mixer`: name, summary, version and mixer are all that a subclass says.

    One whose layers differ gives `config_class` and `mixers` in its place. The settings are the decoder's and the
    mixer's own; presets are tiny, 30m and 119m unless the subclass has others. Importing it makes its models known to
    the Auto classes of transformers, as "seqbench-NAME".
    """

    mixer: ClassVar[type[Mixer[Any]]]
    # What stands around the mixer; a subclass of MixerLayer for another block.
    layer_class: ClassVar[type[MixerLayer]] = MixerLayer
    # The config class of transformers whose checkpoints these are, with `native_fields` and `settings_from` to
    # match; None for checkpoints of the kit's own kind, which those models have too that `publishes` excepts.
    published_config: ClassVar[type[PreTrainedConfig] | None] = None
    # Preset -> what it changes of the settings; a preset of another name than the usual ones gives its shape here.
    preset_settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    width_axis = WidthAxis("hidden_size", 8)
    fine_axis = WidthAxis("intermediate_size", 1)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "mixer" in cls.__dict__ or "config_class" in cls.__dict__:
            if "config_class" not in cls.__dict__:
                cls.config_class = settings_of(cls.mixer, cls.name)
            if "presets" not in cls.__dict__:
                cls.presets = _Presets(cls)
            # What `bench show` prints; the docstring above tells authors, not users.
            cls.__doc__ = cls.__doc__ or getattr(cls, "mixer", cls).__doc__ or cls.summary
            own = _native_classes(cls, False)
            cls.other_formats = () if cls.published_config is None else (own[0],)

    @classmethod
    def mixers(cls, settings: Any) -> Sequence[type[Mixer[Any]]]:
        """The mixer of each layer; `mixer` in every one, as it stands."""
        return [cls.mixer] * settings.num_hidden_layers

    @classmethod
    def embedding_norm(cls, settings: Any) -> nn.Module | None:
        """What embeddings go through before the first layer; nothing, as it stands."""
        del settings
        return None

    @classmethod
    def final_norm(cls, settings: Any) -> nn.Module | None:
        """What stands before the head; None, as it stands, for a norm as the settings say."""
        del settings
        return None

    @classmethod
    def empty_state(cls, settings: Any) -> MixerState:
        """The state before the first token."""
        del settings
        return MixerState()

    @classmethod
    def steps(cls, settings: Any, backbone: nn.Module) -> Steps | None:
        """A quicker way of the backbone for one token a row; none, as it stands."""
        del settings, backbone
        return None

    @classmethod
    def order(cls, settings: Any) -> Sequence[int]:
        """Which layer runs at each depth: each once, as it stands. A layer that is named twice is shared."""
        return range(len(cls.mixers(settings)))

    def build(self, config: Any) -> MixerForCausalLM:
        """A freshly initialised decoder."""
        published = self.published_config is not None and self.publishes(config)
        config_class, model_class = _native_classes(type(self), published)
        return model_class(config_class(**(self.native_fields(config) if published else dataclasses.asdict(config))))

    @classmethod
    def published_model(cls) -> type[MixerForCausalLM]:
        """The class of models in the published format, for a module to have under the name that it has there."""
        return _native_classes(cls, True)[1]

    def publishes(self, config: Any) -> bool:
        """Whether the published format, if there is one, can say these settings; all of them, as it stands.

        Other models are saved in the kit's own format, which no other program takes for something else.
        """
        del config
        return True

    def native_fields(self, config: Any) -> dict[str, Any]:
        """The settings as fields of `published_config`, where there is one; `settings_from` is the way back."""
        return dataclasses.asdict(config)

    def with_vocabulary(self, config: Any, vocab_size: int) -> Any:
        """`config` with the task's vocabulary size."""
        return dataclasses.replace(config, vocab_size=vocab_size)

    def with_training_length(self, config: Any, longest: int) -> Any:
        """As the mixer says."""
        return self.mixer.with_training_length(config, longest)

    def with_width(self, config: Any, width: int) -> Any:
        """`config` at another hidden size; feed-forward layers grow in proportion, and nothing of the mixer's."""
        if config.feed_forward == "none":
            return dataclasses.replace(config, hidden_size=width)
        return at_width(config, width)

    def parameter_group(self, parameter_name: str) -> str:
        """The group "embedding", "norm", "mlp", "short convolution", or one of the mixer's."""
        names = self.layer_class.layout
        if names.embedding in parameter_name or "lm_head" in parameter_name:
            return "embedding"
        inner = names.inside_mixer(parameter_name)
        if inner is not None:
            groups = self.mixer.parameter_groups
            return next((group for prefix, group in groups.items() if inner.startswith(prefix)), "mixer")
        if ".short_convolution." in parameter_name:
            return "short convolution"
        if ".learned_positions." in parameter_name:
            return "positions"
        return "mlp" if f".{names.feed_forward}." in parameter_name else "norm"

    def matrix_parts(self, config: Any, parameter_name: str) -> Sequence[int] | None:
        """As the mixer says of its own; the taps of short convolutions are no linear map."""
        inner = self.layer_class.layout.inside_mixer(parameter_name)
        if inner is not None:
            return self.mixer.matrix_parts(config, inner)
        return () if ".short_convolution." in parameter_name else None

    def flops(self, config: Any, sequence_length: int) -> Flops:
        """Products of mixers, feed-forward layers and head; convolutions, gates, norms and residuals are none."""
        at_depth, hidden = self._at_depth(config), config.hidden_size
        forward = {"mixer": sum(layer_flops(mixer, config, sequence_length) for mixer in at_depth)}
        if config.feed_forward == "swiglu":
            forward["mlp"] = 2 * sequence_length * len(at_depth) * 3 * hidden * config.intermediate_size
        return Flops({**forward, "head": 2 * sequence_length * hidden * config.vocab_size})

    def state_bytes(self, config: Any, sequence_length: int) -> int:
        """What mixers and short convolutions carry, and the number of tokens seen."""
        at_depth, seen = self._at_depth(config), 8
        inputs = _FP32_BYTES * config.hidden_size * sum(inputs_kept_before(mixer, config) for mixer in at_depth)
        return sum(layer_state_bytes(mixer, config, sequence_length) for mixer in at_depth) + inputs + seen

    def attention_reach(self, config: Any) -> int | None:
        """That of the attention of all layers; None where one has none, or looks at all."""
        return _together(mixer.attention_reach(config) for mixer in self._at_depth(config))

    def receptive_field(self, config: Any) -> int | None:
        """The reaches of all mixers and of the convolutions before them, and the token itself."""
        at_depth = self._at_depth(config)
        reach = _together(mixer.reach(config) for mixer in at_depth)
        if reach is None:
            return None
        return reach + sum(inputs_kept_before(mixer, config) for mixer in at_depth) + 1

    def longest_sequence(self, config: Any) -> int | None:
        """The rows of the table of learned positions."""
        return config.learned_positions if config.position_encoding == LEARNED else None

    def confounds(self, config: Any) -> dict[str, str]:
        """The switches of the decoder, and the mixer's own lines."""
        at_depth = self._at_depth(config)
        return {
            "short convolution": _convolution(config, at_depth[0]),
            "position encoding": _positions(config),
            "depth": _depth(len(self.mixers(config)), len(at_depth)),
            "feed-forward": config.feed_forward,
            "norm": f"{config.norm}, before each part",
            "initialisation": f"normal, deviation {config.initializer_range:g}",
            "kernel path": "torch operations",
            **at_depth[0].confounds(config),
        }

    def _at_depth(self, config: Any) -> list[type[Mixer[Any]]]:
        """The mixer at each depth; a shared one as often as it runs."""
        mixers = self.mixers(config)
        return [mixers[index] for index in self.order(config)]


def _convolution(config: Any, mixer: type[Mixer[Any]]) -> str:
    """The short convolution in words."""
    if not config.short_convolution:
        return "none"
    place = "inside" if mixer.short_convolution_inside else "before"
    return f"{config.short_convolution} taps per channel {place} each mixer"


def _positions(config: Any) -> str:
    if config.position_encoding == LEARNED:
        return f"learned, {config.learned_positions:,} positions"
    return config.position_encoding


def _depth(layers: int, depth: int) -> str:
    return f"{depth} layers" if layers == depth else f"{depth} layers, {layers} of them with weights of their own"


def _together(reaches: Iterable[int | None]) -> int | None:
    """Their sum; None where one is unbounded."""
    found = list(reaches)
    return None if None in found else sum(reach for reach in found if reach is not None)


@cache
def _native_classes(plugin: type[MixerPlugin], published: bool, /) -> tuple[type[MixerConfig], type[MixerForCausalLM]]:
    """The classes of config and model that transformers knows the plugin's models by, in its own format or another."""
    prefix = plugin.__name__.removesuffix("Plugin")
    common = {"__module__": plugin.__module__, "design": plugin}
    if published:
        theirs: Any = plugin.published_config
        config_class: Any = new_class(theirs.__name__, (MixerConfig, theirs), exec_body=_filled_with(common))
        prefix = theirs.__name__.removesuffix("Config")
    else:
        # Named otherwise than what other programs know by the published name.
        prefix = prefix if plugin.published_config is None else f"Seqbench{prefix}"
        fields = dataclasses.fields(plugin.config_class)
        own = {"__annotations__": {field.name: field.type for field in fields}, "use_cache": True}
        own |= {"model_type": f"seqbench-{plugin.name}", **{field.name: field.default for field in fields}}
        config_class = new_class(f"{prefix}Config", (MixerConfig,), exec_body=_filled_with(own | common))
    names = plugin.layer_class.layout
    parts = {
        "config_class": config_class,
        "__module__": plugin.__module__,
        "base_model_prefix": names.backbone,
        "_input_embed_layer": names.embedding,
        "_tied_weights_keys": {"lm_head.weight": f"{names.backbone}.{names.embedding}.weight"},
        "_no_split_modules": [plugin.layer_class.__name__],
    }
    model_class = new_class(f"{prefix}ForCausalLM", (MixerForCausalLM,), exec_body=_filled_with(parts))
    if not published:
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        AutoModelForCausalLM.register(config_class, model_class, exist_ok=True)
    return config_class, model_class


def _filled_with(values: Mapping[str, Any]) -> Callable[[dict[str, Any]], None]:
    """What fills the body of a class with them."""

    def fill(namespace: dict[str, Any]) -> None:
        namespace |= values

    return fill
