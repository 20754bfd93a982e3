"""The mixer kit: an author writes how a layer mixes tokens, and all else that a benchmarked model needs is here."""

from seqbench.mixers.chunk import Chunk, Handed, linear_recurrence
from seqbench.mixers.counting import layer_flops, layer_state_bytes
from seqbench.mixers.decoder import MixerLayer, convolution_before, inputs_kept_before, mix_convolved
from seqbench.mixers.layout import Layout
from seqbench.mixers.mixer import Mixer, NoSettings
from seqbench.mixers.plugin import MixerPlugin
from seqbench.mixers.settings import LEARNED, MixerDecoderSettings
from seqbench.mixers.state import MixerState, Tree, map_tensors
from seqbench.mixers.taps import causal_taps
from seqbench.mixers.window_state import WindowState

__all__ = [
    "LEARNED",
    "Chunk",
    "Handed",
    "Layout",
    "Mixer",
    "MixerDecoderSettings",
    "MixerLayer",
    "MixerPlugin",
    "MixerState",
    "NoSettings",
    "Tree",
    "WindowState",
    "causal_taps",
    "convolution_before",
    "inputs_kept_before",
    "layer_flops",
    "layer_state_bytes",
    "linear_recurrence",
    "map_tensors",
    "mix_convolved",
]
