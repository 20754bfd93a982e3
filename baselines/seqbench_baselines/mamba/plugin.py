"""The plugin `mamba`."""

import dataclasses
from dataclasses import dataclass

import torch
from transformers import MambaConfig, PreTrainedConfig

from seqbench.contracts import Flops, ModelPlugin, WidthAxis, check_settings, setting
from seqbench.errors import RequestError
from seqbench_baselines.mamba.model import MambaForCausalLM
from seqbench_kernels.selective_scan import selective_scan_path


@dataclass(frozen=True)
class MambaSettings:
    """Shape and initialisation of a Mamba; fields bear the names of transformers' MambaConfig."""

    vocab_size: int = setting(384, "token ids; follows from the task in a run", minimum=1)
    hidden_size: int = setting(64, "size of the residual stream", minimum=1)
    num_hidden_layers: int = setting(8, "blocks; as published, two stand for one transformer layer", minimum=1)
    expand: int = setting(2, "channels of the scan per unit of the hidden size", minimum=1)
    extra_channels: int = setting(
        0, "channels beyond expand x hidden_size, to match parameters finely (may be negative; not a published field)"
    )
    state_size: int = setting(16, "state per channel", minimum=1)
    conv_kernel: int = setting(4, "taps of the causal convolution before the scan", minimum=1)
    time_step_rank: int = setting(0, "rank of the step-size projection; 0 is hidden_size / 16, rounded up", minimum=0)
    use_bias: bool = setting(False, "whether the input and output projections have a bias")
    use_conv_bias: bool = setting(True, "whether the convolution has a bias")
    time_step_min: float = setting(0.001, "smallest initial step size", minimum=1e-6, maximum=1)
    time_step_max: float = setting(0.1, "largest initial step size", minimum=1e-6, maximum=10)
    initializer_range: float = setting(0.1, "standard deviation of the initial embedding", minimum=0)
    layer_norm_epsilon: float = setting(1e-5, "epsilon of the norms", minimum=0)
    tie_word_embeddings: bool = setting(True, "whether the head shares the embedding's weights")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.channels < 1:
            raise RequestError(
                f"extra_channels must leave at least one channel: more than {-self.expand * self.hidden_size} with"
                f" expand {self.expand} and hidden_size {self.hidden_size}, not {self.extra_channels}"
            )
        if self.time_step_min > self.time_step_max:
            raise RequestError(
                f"time_step_min ({self.time_step_min:g}) must not exceed time_step_max ({self.time_step_max:g})"
            )

    @property
    def channels(self) -> int:
        """Channels of the convolution and the scan."""
        return self.expand * self.hidden_size + self.extra_channels

    @property
    def rank(self) -> int:
        """Rank of the step-size projection."""
        return self.time_step_rank or -(-self.hidden_size // 16)


class MambaPlugin(ModelPlugin[MambaSettings]):
    """Mamba, with transformers' parameters and initialisation."""

    name = "mamba"
    summary = "selective state-space model of constant state (Mamba; short convolution, no positions)"
    version = "2"
    config_class = MambaSettings
    presets = {  # noqa: RUF012 (a class-level constant of the contract)
        "tiny": MambaSettings(),
        # Two blocks for each of the 12 layers of the transformer presets of that size.
        "30m": MambaSettings(hidden_size=440, num_hidden_layers=24),
        "119m": MambaSettings(hidden_size=880, num_hidden_layers=24),
    }
    width_axis = WidthAxis("hidden_size", 8)
    fine_axis = WidthAxis("extra_channels", 1)

    def build(self, config: MambaSettings) -> MambaForCausalLM:
        """A freshly initialised Mamba (transformers' initialisation: S4D-real A, log-uniform step sizes)."""
        return MambaForCausalLM(
            MambaConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.hidden_size,
                num_hidden_layers=config.num_hidden_layers,
                expand=config.expand,
                intermediate_size=config.channels,  # type: ignore[call-arg]
                state_size=config.state_size,
                conv_kernel=config.conv_kernel,
                time_step_rank=config.rank,
                use_bias=config.use_bias,
                use_conv_bias=config.use_conv_bias,
                time_step_min=config.time_step_min,
                time_step_max=config.time_step_max,
                initializer_range=config.initializer_range,
                layer_norm_epsilon=config.layer_norm_epsilon,
                tie_word_embeddings=config.tie_word_embeddings,
                # transformers' defaults name the first token, which is an ordinary byte here.
                pad_token_id=None,
                bos_token_id=None,
                eos_token_id=None,
            )
        )

    def with_vocabulary(self, config: MambaSettings, vocab_size: int) -> MambaSettings:
        """`config` with the task's vocabulary size."""
        return dataclasses.replace(config, vocab_size=vocab_size)

    def parameter_group(self, parameter_name: str) -> str:
        """One of "embedding", "projections", "convolution", "scan" (A, D and the step sizes) or "norm"."""
        if "embeddings" in parameter_name or "lm_head" in parameter_name:
            return "embedding"
        if "norm" in parameter_name:
            return "norm"
        if ".conv1d." in parameter_name:
            return "convolution"
        return "projections" if ".in_proj." in parameter_name or ".out_proj." in parameter_name else "scan"

    def flops(self, config: MambaSettings, sequence_length: int) -> Flops:
        """The linear projections, which are all the matrix products there are.

        Not counted, being elementwise: the convolution (2 x conv_kernel per channel and token), the scan (about
        7 x state_size per channel and token: decay, update, readout), gates, norms, residuals.
        """
        hidden, channels, rank = config.hidden_size, config.channels, config.rank
        per_block = 2 * sequence_length * config.num_hidden_layers
        return Flops(
            {
                "projections": per_block * 3 * hidden * channels,
                "scan inputs": per_block * channels * (rank + 2 * config.state_size),
                "step sizes": per_block * rank * channels,
                "head": 2 * sequence_length * hidden * config.vocab_size,
            }
        )

    def settings_from(self, native: PreTrainedConfig) -> MambaSettings:
        """The settings of a checkpoint, whose number of channels need not be a multiple of its hidden size."""
        assert isinstance(native, MambaConfig)
        config = super().settings_from(native)
        channels = int(native.intermediate_size)
        return dataclasses.replace(config, extra_channels=channels - config.expand * config.hidden_size)

    def state_bytes(self, config: MambaSettings, sequence_length: int) -> int:
        """Convolution and scan states, and the number of tokens seen; the same at every length."""
        del sequence_length
        seen = 8
        return 4 * config.num_hidden_layers * config.channels * (config.conv_kernel - 1 + config.state_size) + seen

    def attention_reach(self, config: MambaSettings) -> int | None:
        """None: no attention."""
        del config
        return None

    def receptive_field(self, config: MambaSettings) -> int | None:
        """None: the recurrence is unbounded."""
        del config
        return None

    def confounds(self, config: MambaSettings) -> dict[str, str]:
        """What decides rankings besides the mixer."""
        path = selective_scan_path("cpu")
        if torch.cuda.is_available():
            path = f"on cpu: {path}; on cuda: {selective_scan_path('cuda')}"
        return {
            "short convolution": f"{config.conv_kernel} taps per block" if config.conv_kernel > 1 else "none",
            "position encoding": "none",
            "depth": f"{config.num_hidden_layers} blocks (two stand for one transformer layer)",
            "initialisation": "S4D-real A; step sizes log-uniform from"
            f" {config.time_step_min:g} to {config.time_step_max:g}; embedding normal, deviation"
            f" {config.initializer_range:g}",
            "kernel path": path,
        }
