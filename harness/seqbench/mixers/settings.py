"""Settings of a mixer decoder: those that every mixer shares, and the mixer's own beside them."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from seqbench.contracts import check_settings, setting
from seqbench.errors import RequestError
from seqbench.mixers.mixer import Mixer
from seqbench.nn import LARGEST_DEPTH

# The one position encoding that every decoder has.
LEARNED = "learned"


@dataclass(frozen=True)
class MixerDecoderSettings:
    """Shape of a pre-norm decoder around a mixer; the same switches for every mixer, so that confounds can be equal."""

    vocab_size: int = setting(384, "token ids; follows from the task in a run", minimum=1)
    hidden_size: int = setting(64, "size of the residual stream", minimum=1)
    num_hidden_layers: int = setting(4, "layers", minimum=1, maximum=LARGEST_DEPTH)
    feed_forward: str = setting("swiglu", "what follows the mixer in a layer", choices=("swiglu", "none"))
    intermediate_size: int = setting(128, "width of the feed-forward layers, where there are any", minimum=1)
    short_convolution: int = setting(
        0, "taps of a causal convolution per channel before each mixer, added to its input; 0 for none", minimum=0
    )
    position_encoding: str = setting(
        "none", "none, learned (a table added to the embeddings), or what the mixer applies by itself"
    )
    learned_positions: int = setting(
        1024, "longest sequence of position_encoding learned, whose table has so many rows", minimum=1
    )
    norm: str = setting("rms", "norms before mixers, feed-forward layers and head", choices=("rms", "layer"))
    norm_epsilon: float = setting(1e-6, "epsilon of the norms", minimum=0)
    initializer_range: float = setting(0.02, "standard deviation of initial weights", minimum=0)
    tie_word_embeddings: bool = setting(True, "whether the head shares the embedding's weights")


def settings_of(mixer: type[Mixer[Any]], name: str) -> type:
    """A frozen dataclass of the decoder's settings and the mixer's own, checked by both.

    Raises TypeError for a field of the mixer that has the name of one of the decoder's, and for a default of a setting
    that the decoder does not have.
    """
    shared = {field.name: field for field in dataclasses.fields(MixerDecoderSettings)}
    for field in dataclasses.fields(mixer.settings_class):
        if field.name in shared:
            raise TypeError(
                f"{mixer.__name__}: {field.name} is a setting of every decoder; name the mixer's otherwise, and say"
                " another default in `defaults`"
            )
    unknown = [name for name in mixer.defaults if name not in shared]
    if unknown:
        raise TypeError(f"{mixer.__name__}: `defaults` names {unknown[0]}, which is no setting of the decoder")
    changed: list[Any] = [
        (name, shared[name].type, dataclasses.field(default=default, metadata=shared[name].metadata))
        for name, default in mixer.defaults.items()
    ]

    def check(self: Any) -> None:
        check_settings(self)
        allowed = ("none", LEARNED, *mixer.positions)
        if self.position_encoding not in allowed:
            raise RequestError(
                f"position_encoding={self.position_encoding}: {name} takes {', '.join(allowed)}, and no other"
            )
        mixer.check(self)

    made = dataclasses.make_dataclass(
        # A mixer's own settings are usually called after it too.
        f"{mixer.__name__}DecoderSettings",
        changed,
        bases=(mixer.settings_class, MixerDecoderSettings),
        namespace={"__post_init__": check, "__doc__": MixerDecoderSettings.__doc__},
        frozen=True,
    )
    made.__module__ = mixer.__module__
    return made
