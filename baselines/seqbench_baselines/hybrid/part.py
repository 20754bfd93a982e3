"""One entry of a hybrid's pattern: a mixer of another plugin, with settings of its own."""

import dataclasses
import inspect
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from seqbench.contracts import with_settings
from seqbench.errors import RequestError
from seqbench.mixers import (
    LEARNED,
    Chunk,
    Handed,
    Mixer,
    MixerDecoderSettings,
    MixerLayer,
    MixerPlugin,
    Tree,
    convolution_before,
    inputs_kept_before,
    layer_flops,
    layer_state_bytes,
    mix_convolved,
)
from seqbench.plugins.registry import find_model

# NAME, or NAME(field=value; field=value).
_ENTRY = re.compile(r"(?P<name>[\w.:-]+)(?:\((?P<changes>[^()]*)\))?")
# What a part takes from its own plugin unless the hybrid says otherwise; the rest of the decoder is the hybrid's.
_OWN = ("short_convolution", "position_encoding")


@dataclass(frozen=True)
class Part:
    """A mixer in the pattern.

    Attributes:
        name: of the plugin whose mixer it is.
        preset: of that plugin, from which its own settings come.
        changes: field and value, as typed.
    """

    name: str
    preset: str
    changes: tuple[tuple[str, str], ...]

    @property
    def plugin(self) -> MixerPlugin:
        """The plugin; raises RequestError where there is none of that name, or none that is one mixer in each layer."""
        return _plugin(self.name)

    @property
    def module(self) -> str:
        """The name of its module inside a layer, and of its parameters' group."""
        return re.sub(r"\W", "_", self.name)

    def settings(self, hybrid: Any) -> Any:
        """The mixer's settings: its plugin's preset at the hybrid's width and depth, changed as typed."""
        return _settings(self, hybrid)

    @property
    def mixer(self) -> "type[PartMixer]":
        """The mixer as a layer of a hybrid has it."""
        return _mixer(self)


def read_part(text: str, preset: str) -> Part:
    """The entry `text` of a pattern. Raises RequestError for what is none."""
    found = _ENTRY.fullmatch(text.strip())
    if found is None:
        raise RequestError(f"layers: {text!r} is no part; type NAME, or NAME(field=value; field=value)")
    changes = [change for change in (found["changes"] or "").split(";") if change.strip()]
    pairs = [tuple(map(str.strip, change.split("=", 1))) for change in changes]
    wrong = next((change for change, pair in zip(changes, pairs, strict=True) if len(pair) != 2), None)
    if wrong is not None:
        raise RequestError(f"layers: {wrong.strip()!r} in {text.strip()!r} is not field=value")
    return Part(found["name"], preset, tuple((pair[0], pair[1]) for pair in pairs))


class PartMixer(Mixer[Any]):
    """A mixer of another plugin among others; made by `Part.mixer`, which says whose.

    A stream that its layers hand on passes over the layers of other kinds.
    """

    part: ClassVar[Part]
    # The kit's convolution is here, since the parts may differ in it.
    short_convolution_inside = True

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        own, inner = self.part.settings(settings), self._inner()
        self.short_convolution = convolution_before(inner, own)
        self.add_module(self.part.module, inner(hidden_size, own))

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree, Tree, Tensor | None]:
        """As `Mixer.forward`; the stream is a dict of the parts' streams."""
        streams, name = chunk.stream or {}, self.part.module
        inner: Any = self._modules[name]
        own = chunk.after(Handed(streams.get(name)))
        added, state, handed = mix_convolved(inner, self.short_convolution, hidden, state, own)
        streams = streams if handed.stream is None else {**streams, name: handed.stream}
        return added, state, streams, handed.auxiliary

    @classmethod
    def reach(cls, settings: Any) -> int | None:
        """That of the mixer and of the convolution before it."""
        own = cls.part.settings(settings)
        reach = cls._inner().reach(own)
        return None if reach is None else reach + inputs_kept_before(cls._inner(), own)

    @classmethod
    def attention_reach(cls, settings: Any) -> int | None:
        """That of the mixer."""
        return cls._inner().attention_reach(cls.part.settings(settings))

    @classmethod
    def flops(cls, settings: Any, length: int) -> int:
        """Those of the mixer."""
        return layer_flops(cls._inner(), cls.part.settings(settings), length)

    @classmethod
    def state_bytes(cls, settings: Any, length: int) -> int:
        """Those of the mixer and of the convolution before it."""
        own = cls.part.settings(settings)
        inputs = torch.float32.itemsize * inputs_kept_before(cls._inner(), own) * own.hidden_size
        return layer_state_bytes(cls._inner(), own, length) + inputs

    @classmethod
    def _inner(cls) -> type[Mixer[Any]]:
        return cls.part.plugin.mixer


# Looking an entry point up asks every installed package, and every layer and parameter asks for the plugin.
@cache
def _plugin(name: str) -> MixerPlugin:
    plugin = find_model(name)
    if not isinstance(plugin, MixerPlugin) or not hasattr(plugin, "mixer"):
        raise RequestError(f"layers: {name} is no mixer, which every part of a hybrid has to be")
    # transformers wraps the function anew in each subclass.
    if inspect.unwrap(plugin.layer_class.forward) is not inspect.unwrap(MixerLayer.forward):
        raise RequestError(f"layers: {name} has a block of its own, in which its mixer belongs; it is no part")
    return plugin


@cache
def _mixer(part: Part) -> type[PartMixer]:
    return type(f"{part.plugin.mixer.__name__}Part", (PartMixer,), {"part": part, "__module__": __name__})


@cache
def _settings(part: Part, hybrid: Any) -> Any:
    plugin = part.plugin
    if part.preset not in plugin.presets:
        raise RequestError(f"layers: {part.name} has no preset {part.preset!r}, only {', '.join(plugin.presets)}")
    shared = {field.name for field in dataclasses.fields(MixerDecoderSettings)} - set(_OWN)
    changes = {name: getattr(hybrid, name) for name in shared}
    if hybrid.short_convolution is not None:
        changes["short_convolution"] = hybrid.short_convolution
    if hybrid.position_encoding == LEARNED:
        # The hybrid's own table serves all parts.
        changes["position_encoding"] = "none"
    elif hybrid.position_encoding != "own":
        changes["position_encoding"] = hybrid.position_encoding
    fixed = next((name for name, _ in part.changes if name in shared), None)
    if fixed is not None:
        raise RequestError(
            f"layers: {part.name}: {fixed} is the hybrid's, for all layers; type --set model.{fixed}=..."
        )
    at_width = plugin.with_width(plugin.presets[part.preset], hybrid.hidden_size)
    return with_settings(dataclasses.replace(at_width, **changes), dict(part.changes), f"layers: {part.name}")
