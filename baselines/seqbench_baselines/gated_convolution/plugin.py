"""The plugin `gated-convolution`."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from seqbench.contracts import Flops, ModelPlugin, WidthAxis, check_settings, setting
from seqbench.nn import LARGEST_DEPTH
from seqbench_baselines.gated_convolution.modeling import GatedConvolutionConfig, GatedConvolutionForCausalLM


@dataclass(frozen=True)
class GatedConvolutionSettings:
    """Shape of a pre-norm decoder: a gated long convolution and a SwiGLU per layer, RMSNorm, tied embedding."""

    vocab_size: int = setting(384, "token ids; follows from the task in a run", minimum=1)
    hidden_size: int = setting(64, "size of the residual stream", minimum=1)
    intermediate_size: int = setting(128, "width of the SwiGLU", minimum=1)
    num_hidden_layers: int = setting(4, "layers", minimum=1, maximum=LARGEST_DEPTH)
    filter_length: int = setting(
        512, "taps of a channel's filter: as published, as many as the task's longest sequence has tokens", minimum=2
    )
    rms_norm_eps: float = setting(1e-6, "epsilon of the norms", minimum=0)
    initializer_range: float = setting(0.02, "standard deviation of initial weights, the filters aside", minimum=0)
    tie_word_embeddings: bool = setting(True, "whether the head shares the embedding's weights")

    def __post_init__(self) -> None:
        check_settings(self)


class GatedConvolutionPlugin(ModelPlugin[GatedConvolutionSettings]):
    """Decoder of gated long convolutions: BaseConv of Zoology, arXiv 2312.04927, with filters learned tap by tap.

    The filter is the model's memory of other tokens. As published it is as long as the sequences that the model is
    made for; a layer sees nothing that lies filter_length tokens back or farther, at any length of the sequence, and
    taps beyond the lengths of training stay as they were initialised. So set filter_length to the longest sequence of
    the task: the taps count as parameters, one per channel and layer each.

    The authors' runs on associative recall differ: filters of 3 taps and long ones in turns, the long ones made by a
    small network from positions, and no feed-forward layers.
    """

    name = "gated-convolution"
    summary = "decoder of gated long convolutions, one learned filter per channel (BaseConv of Zoology; no positions)"
    version = "1"
    config_class = GatedConvolutionSettings
    presets = {  # noqa: RUF012 (a class-level constant of the contract)
        "tiny": GatedConvolutionSettings(),
        # 12 layers as the transformer presets of that size, and filters of 1,024 taps.
        "30m": GatedConvolutionSettings(
            hidden_size=448, intermediate_size=1344, num_hidden_layers=12, filter_length=1024
        ),
        "119m": GatedConvolutionSettings(
            hidden_size=896, intermediate_size=3072, num_hidden_layers=12, filter_length=1024
        ),
    }
    width_axis = WidthAxis("hidden_size", 8)
    fine_axis = WidthAxis("intermediate_size", 1)

    def build(self, config: GatedConvolutionSettings) -> GatedConvolutionForCausalLM:
        """A freshly initialised decoder."""
        return GatedConvolutionForCausalLM(GatedConvolutionConfig(**dataclasses.asdict(config)))

    def with_vocabulary(self, config: GatedConvolutionSettings, vocab_size: int) -> GatedConvolutionSettings:
        """`config` with the task's vocabulary size."""
        return dataclasses.replace(config, vocab_size=vocab_size)

    def with_width(self, config: GatedConvolutionSettings, width: int) -> GatedConvolutionSettings:
        """`config` at another hidden size; the SwiGLU grows in proportion."""
        intermediate = max(1, round(config.intermediate_size * width / config.hidden_size))
        return dataclasses.replace(config, hidden_size=width, intermediate_size=intermediate)

    def parameter_group(self, parameter_name: str) -> str:
        """The group "embedding", "filters" (taps and their biases), "gate", "mlp" or "norm"."""
        if "embed_tokens" in parameter_name or "lm_head" in parameter_name:
            return "embedding"
        if ".convolution.proj." in parameter_name:
            return "gate"
        if ".convolution." in parameter_name:
            return "filters"
        return "mlp" if ".mlp." in parameter_name else "norm"

    def matrix_parts(self, config: GatedConvolutionSettings, parameter_name: str) -> Sequence[int] | None:
        """The filters map no features to features."""
        del config
        return () if parameter_name.endswith(".taps") else None

    def flops(self, config: GatedConvolutionSettings, sequence_length: int) -> Flops:
        """The linear maps, which are all the matrix products there are.

        Not counted, being none: the convolution, which goes by FFT (two transforms of about 2 n log2(n) operations per
        channel, n the next power of two above twice the length, and one of the filter), gates, norms, residuals.
        """
        hidden = config.hidden_size
        per_map = 2 * sequence_length * config.num_hidden_layers * hidden
        return Flops(
            {
                "gate": per_map * hidden,
                "mlp": per_map * 3 * config.intermediate_size,
                "head": 2 * sequence_length * hidden * config.vocab_size,
            }
        )

    def state_bytes(self, config: GatedConvolutionSettings, sequence_length: int) -> int:
        """The newest inputs of every convolution, up to filter_length - 1, and the number of tokens seen."""
        places, seen = min(sequence_length, config.filter_length - 1), 8
        return 4 * config.num_hidden_layers * places * config.hidden_size + seen

    def attention_reach(self, config: GatedConvolutionSettings) -> int | None:
        """None: no attention."""
        del config
        return None

    def receptive_field(self, config: GatedConvolutionSettings) -> int | None:
        """Layers x (filter_length - 1), and the token itself."""
        return config.num_hidden_layers * (config.filter_length - 1) + 1

    def confounds(self, config: GatedConvolutionSettings) -> dict[str, str]:
        """What decides rankings besides the mixer."""
        return {
            "short convolution": "none",
            "long convolution": f"{config.filter_length} taps per channel and layer",
            "position encoding": "none",
            "depth": f"{config.num_hidden_layers} layers",
            "initialisation": f"normal, deviation {config.initializer_range:g}; taps uniform, variance 1 / (3 x taps)",
            "kernel path": "FFT in fp32",
        }
