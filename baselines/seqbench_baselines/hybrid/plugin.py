"""The plugin `hybrid`: layers of several mixers, in a pattern."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqbench.contracts import check_settings, setting
from seqbench.mixers import MixerDecoderSettings, MixerPlugin
from seqbench_baselines.hybrid.part import Part, PartMixer, read_part


@dataclass(frozen=True)
class HybridSettings(MixerDecoderSettings):
    """Shape of a pre-norm decoder, and the pattern of its layers."""

    layers: tuple[str, ...] = setting(
        ("mamba2", "sliding-window"),
        "mixers from the first layer on, repeated to the depth: NAME or NAME(field=value; field=value)",
    )
    own_preset: str = setting("tiny", "preset of the mixers' plugins that their own settings come from")
    short_convolution: int | None = setting(  # type: ignore[assignment]
        None, "taps of short convolutions; none for those that each mixer's own plugin has, 0 for no convolution"
    )
    position_encoding: str = setting("own", "positions of every mixer; own for those that its own plugin has")

    def __post_init__(self) -> None:
        check_settings(self)
        for part in parts_of(self):
            part.settings(self)


def parts_of(settings: HybridSettings) -> list[Part]:
    """The part of each layer."""
    pattern = [read_part(text, settings.own_preset) for text in settings.layers]
    return [pattern[depth % len(pattern)] for depth in range(settings.num_hidden_layers)]


class HybridPlugin(MixerPlugin):
    """A decoder whose layers are a pattern of mixers, each with settings of its own.

    Every plugin that is one mixer in each layer can be a part: `--set model.layers=mamba2,mamba2,sliding-window`
    repeats the three to the depth, and `mamba2(state_size=32; num_heads=2)` changes settings of one. Width, depth,
    norms, feed-forward layers, head and initialisation are the hybrid's.
    """

    name = "hybrid"
    summary = "decoder whose layers are a pattern of other plugins' mixers (--set model.layers=A,A,B)"
    version = "1"
    config_class = HybridSettings

    # The other sizes take the mixers' own settings of that size.
    preset_settings = {"30m": {"own_preset": "30m"}, "119m": {"own_preset": "119m"}}  # noqa: RUF012

    @classmethod
    def mixers(cls, settings: Any) -> Sequence[type[PartMixer]]:
        """That of the pattern at each depth."""
        return [part.mixer for part in parts_of(settings)]

    def with_training_length(self, config: Any, longest: int) -> Any:
        """The same: what a part has for each place back is set in the pattern."""
        del longest
        return config

    def resolved_config(self, config: Any) -> Mapping[str, Any]:
        """The parts' versions, which decide figures as the hybrid's own does."""
        return {part.name: part.plugin.version for part in parts_of(config)}

    def matrix_parts(self, config: Any, parameter_name: str) -> Sequence[int] | None:
        """As the part says of its own."""
        place = re.search(r"\.layers\.(\d+)\.mixer\.\w+?\.(.+)", parameter_name)
        if place is None or ".short_convolution." in parameter_name:
            return super().matrix_parts(config, parameter_name)
        part = parts_of(config)[int(place[1])]
        return part.plugin.mixer.matrix_parts(part.settings(config), place[2])

    def parameter_group(self, parameter_name: str) -> str:
        """The group "embedding", "norm", "mlp", "short convolution", or the part's name."""
        inner = self.layer_class.layout.inside_mixer(parameter_name)
        if inner is None or inner.startswith("short_convolution."):
            return super().parameter_group(parameter_name)
        return inner.partition(".")[0]

    def confounds(self, config: Any) -> dict[str, str]:
        """Those of the decoder, and what each part's own plugin says otherwise."""
        pattern = list(dict.fromkeys(parts_of(config)))
        of_parts = [part.plugin.confounds(part.settings(config)) for part in pattern]
        lines = super().confounds(config)
        for key in {key: None for lines_of_part in of_parts for key in lines_of_part} | lines:
            said = [part.get(key, "none") for part in of_parts]
            if key not in ("depth", "feed-forward", "norm"):
                lines[key] = (
                    said[0]
                    if len(set(said)) == 1
                    else "; ".join(f"{part.name}: {words}" for part, words in zip(pattern, said, strict=True))
                )
        return {"layers": ", ".join(config.layers), **lines}
