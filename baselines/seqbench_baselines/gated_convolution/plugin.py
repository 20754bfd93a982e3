"""The plugin `gated-convolution`."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from seqbench.contracts import Classification, setting
from seqbench.mixers import Chunk, Mixer, MixerPlugin, Tree
from seqbench_baselines.gated_convolution.convolution import causal_convolution


@dataclass(frozen=True)
class FilterSettings:
    """Of the filters."""

    filter_length: int = setting(
        512,
        "taps of a channel's filter; in a run as many as the task's longest training sequence has tokens, unless set",
        minimum=2,
    )


class GatedConvolution(Mixer[Any]):
    """(u W + b1) * (h conv u + b2): BaseConv, the gated convolution of Zoology (arXiv 2312.04927, section 4).

    h holds one causal filter per channel, every tap of which is learned; the biases are one number per channel.
    """

    settings_class = FilterSettings
    parameter_groups = {"proj.": "gate", "": "filters"}  # noqa: RUF012 (a class-level constant of the contract)

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.proj = nn.Linear(hidden_size, hidden_size)
        self.taps = nn.Parameter(torch.empty(hidden_size, settings.filter_length))
        self.bias = nn.Parameter(torch.empty(hidden_size))

    def initialise(self) -> None:
        """As torch initialises a depthwise convolution of that length: uniform, of variance 1 / (3 x length)."""
        bound = self.settings.filter_length**-0.5
        init.uniform_(self.taps, -bound, bound)
        init.zeros_(self.bias)

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """The newest inputs are carried on, as many as the filter reaches back, or as there have been."""
        history = hidden[:, :0] if state is None else state.to(hidden.dtype)
        convolved = causal_convolution(hidden, history, self.taps) + self.bias
        places = min(self.settings.filter_length - 1, history.shape[1] + hidden.shape[1])
        return self.proj(hidden) * convolved.to(hidden.dtype), chunk.newest(hidden, history, places)

    @classmethod
    def with_training_length(cls, settings: Any, longest: int) -> Any:
        """A tap for each place back: older ones would stay as they were initialised."""
        return dataclasses.replace(settings, filter_length=max(2, longest))

    @classmethod
    def reach(cls, settings: Any) -> int:
        """The oldest tap's distance."""
        return settings.filter_length - 1

    @classmethod
    def state_bytes(cls, settings: Any, length: int) -> int:
        """The newest inputs, up to filter_length - 1."""
        return 4 * min(length, settings.filter_length - 1) * settings.hidden_size

    @classmethod
    def matrix_parts(cls, settings: Any, parameter_name: str) -> Sequence[int] | None:
        """The filters map no features to features."""
        return () if parameter_name == "taps" else None

    @classmethod
    def confounds(cls, settings: Any) -> dict[str, str]:
        """The long convolution, which goes by FFT."""
        return {
            "long convolution": f"{settings.filter_length} taps per channel and layer",
            "initialisation": f"normal, deviation {settings.initializer_range:g}; taps uniform,"
            " variance 1 / (3 x taps)",
            "kernel path": "FFT in fp32",
        }


class GatedConvolutionPlugin(MixerPlugin):
    """Decoder of gated long convolutions: BaseConv of Zoology, arXiv 2312.04927, with filters learned tap by tap.

    The filter is the model's memory of other tokens: a layer sees nothing that lies filter_length tokens back or
    farther, at any length of the sequence. As published it is as long as the sequences that the model is made for: in a
    run, as the longest training sequence of the task, since taps beyond would stay as they were initialised. Set
    filter_length for another one. The taps count as parameters, one per channel and layer each.

    The authors' runs on associative recall differ: filters of 3 taps and long ones in turns, the long ones made by a
    small network from positions, and no feed-forward layers.
    """

    name = "gated-convolution"
    summary = "decoder of gated long convolutions, one learned filter per channel (BaseConv of Zoology; no positions)"
    version = "3"
    classification = Classification("2312.04927", 2023, memory=("window",), written=("cache",))
    mixer = GatedConvolution
    # For whoever builds them without a task.
    preset_settings = {"30m": {"filter_length": 1024}, "119m": {"filter_length": 1024}}  # noqa: RUF012
