"""The plugin `mamba2`."""

import dataclasses
import math
from dataclasses import dataclass

import torch
from transformers import Mamba2Config, PreTrainedConfig

from seqbench.contracts import Flops, ModelPlugin, WidthAxis, check_settings, setting
from seqbench.errors import RequestError
from seqbench_baselines.mamba2.model import Mamba2ForCausalLM
from seqbench_kernels.ssd_scan import backward_flops, forward_flops, ssd_scan_path


@dataclass(frozen=True)
class Mamba2Settings:
    """Shape and initialisation of a Mamba-2; fields bear the names of transformers' Mamba2Config."""

    vocab_size: int = setting(384, "token ids; follows from the task in a run", minimum=1)
    hidden_size: int = setting(64, "size of the residual stream", minimum=1)
    num_hidden_layers: int = setting(8, "blocks; as published, two stand for one transformer layer", minimum=1)
    expand: int = setting(2, "channels of the scan per unit of the hidden size", minimum=1)
    num_heads: int = setting(4, "heads of the scan, each with one decay; they divide its channels", minimum=1)
    n_groups: int = setting(1, "groups of heads that share input and output maps; they divide the heads", minimum=1)
    state_size: int = setting(64, "state per channel", minimum=1)
    conv_kernel: int = setting(4, "taps of the causal convolution before the scan", minimum=1)
    use_bias: bool = setting(False, "whether the input and output projections have a bias")
    use_conv_bias: bool = setting(True, "whether the convolution has a bias")
    time_step_min: float = setting(0.001, "smallest initial step size", minimum=1e-6, maximum=1)
    time_step_max: float = setting(0.1, "largest initial step size", minimum=1e-6, maximum=10)
    initializer_range: float = setting(0.1, "standard deviation of the initial embedding", minimum=0)
    layer_norm_epsilon: float = setting(1e-5, "epsilon of the norms", minimum=0)
    tie_word_embeddings: bool = setting(True, "whether the head shares the embedding's weights")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.channels % self.num_heads:
            raise RequestError(
                f"num_heads must divide the {self.channels} channels of expand {self.expand} x hidden_size"
                f" {self.hidden_size}, not {self.num_heads}"
            )
        if self.num_heads % self.n_groups:
            raise RequestError(f"n_groups must divide num_heads {self.num_heads}, not {self.n_groups}")
        if self.time_step_min > self.time_step_max:
            raise RequestError(
                f"time_step_min ({self.time_step_min:g}) must not exceed time_step_max ({self.time_step_max:g})"
            )

    @property
    def channels(self) -> int:
        """Channels of the scan."""
        return self.expand * self.hidden_size

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.channels // self.num_heads

    @property
    def convolved(self) -> int:
        """Channels of the convolution: those of the scan, and its input and output maps."""
        return self.channels + 2 * self.n_groups * self.state_size


class Mamba2Plugin(ModelPlugin[Mamba2Settings]):
    """Mamba-2, with transformers' parameters and initialisation."""

    name = "mamba2"
    summary = "state-space model of constant state with one decay per head (Mamba-2; short convolution, no positions)"
    version = "1"
    config_class = Mamba2Settings
    presets = {  # noqa: RUF012 (a class-level constant of the contract)
        "tiny": Mamba2Settings(),
        # Two blocks for each of the 12 layers of the transformer presets of that size.
        "30m": Mamba2Settings(hidden_size=440, num_hidden_layers=24, num_heads=16, state_size=64),
        "119m": Mamba2Settings(hidden_size=880, num_hidden_layers=24, num_heads=32, state_size=128),
        # state-spaces/mamba2-130m, with its vocabulary of 50,277 rounded up to a multiple of 16.
        "130m": Mamba2Settings(vocab_size=50288, hidden_size=768, num_hidden_layers=24, num_heads=24, state_size=128),
    }
    width_axis = WidthAxis("hidden_size", 8)
    fine_axis = WidthAxis("state_size", 1)

    def build(self, config: Mamba2Settings) -> Mamba2ForCausalLM:
        """A freshly initialised Mamba-2 (transformers' initialisation: A from 1 to the heads, log-uniform steps)."""
        return Mamba2ForCausalLM(
            Mamba2Config(
                vocab_size=config.vocab_size,
                hidden_size=config.hidden_size,
                num_hidden_layers=config.num_hidden_layers,
                expand=config.expand,
                num_heads=config.num_heads,
                head_dim=config.head_dim,
                n_groups=config.n_groups,
                state_size=config.state_size,
                conv_kernel=config.conv_kernel,
                use_bias=config.use_bias,
                use_conv_bias=config.use_conv_bias,
                time_step_min=config.time_step_min,
                time_step_max=config.time_step_max,
                # transformers raises smaller initial steps to 1e-4 unless told otherwise.
                time_step_floor=min(1e-4, config.time_step_min),
                initializer_range=config.initializer_range,
                layer_norm_epsilon=config.layer_norm_epsilon,
                tie_word_embeddings=config.tie_word_embeddings,
                # transformers' defaults name the first tokens, which are ordinary bytes here.
                pad_token_id=None,
                bos_token_id=None,
                eos_token_id=None,
            )
        )

    def with_vocabulary(self, config: Mamba2Settings, vocab_size: int) -> Mamba2Settings:
        """`config` with the task's vocabulary size."""
        return dataclasses.replace(config, vocab_size=vocab_size)

    def with_width(self, config: Mamba2Settings, width: int) -> Mamba2Settings:
        """`config` at another hidden size; heads, and then groups, become fewer where they would not divide."""
        channels = config.expand * width
        heads = next(count for count in range(config.num_heads, 0, -1) if channels % count == 0)
        groups = math.gcd(config.n_groups, heads)
        return dataclasses.replace(config, hidden_size=width, num_heads=heads, n_groups=groups)

    def parameter_group(self, parameter_name: str) -> str:
        """One of "embedding", "projections", "convolution", "scan" (A, D and the step sizes) or "norm"."""
        if "embeddings" in parameter_name or "lm_head" in parameter_name:
            return "embedding"
        if "norm" in parameter_name:
            return "norm"
        if ".conv1d." in parameter_name:
            return "convolution"
        return "projections" if ".in_proj." in parameter_name or ".out_proj." in parameter_name else "scan"

    def flops(self, config: Mamba2Settings, sequence_length: int) -> Flops:
        """The linear projections, and the products of the chunked scan as this project computes it.

        Not counted, being elementwise: the convolution (2 x conv_kernel per channel and token), decays and their
        products with the scores, gates, norms, residuals.
        """
        per_block = 2 * sequence_length * config.num_hidden_layers
        shape = sequence_length, config.num_heads, config.head_dim, config.n_groups, config.state_size
        scan = config.num_hidden_layers * forward_flops(*shape)
        scan_backward = config.num_hidden_layers * backward_flops(*shape)
        forward = {
            "projections": per_block * config.hidden_size * (2 * config.channels + config.convolved + config.num_heads),
            "scan": scan,
            "head": 2 * sequence_length * config.hidden_size * config.vocab_size,
        }
        products = sum(forward.values()) - scan
        return Flops(forward, (2 * products + scan_backward) / (products + scan))

    def settings_from(self, native: PreTrainedConfig) -> Mamba2Settings:
        """The settings of a checkpoint; step sizes with a limit, which no published model has, are refused."""
        assert isinstance(native, Mamba2Config)
        if tuple(native.time_step_limit) != (0.0, math.inf):
            raise RequestError(f"time_step_limit {tuple(native.time_step_limit)} is not supported, only (0, infinity)")
        return super().settings_from(native)

    def state_bytes(self, config: Mamba2Settings, sequence_length: int) -> int:
        """Convolution and scan states, and the number of tokens seen; the same at every length."""
        del sequence_length
        seen = 8
        per_layer = config.convolved * (config.conv_kernel - 1) + config.channels * config.state_size
        return 4 * config.num_hidden_layers * per_layer + seen

    def attention_reach(self, config: Mamba2Settings) -> int | None:
        """None: no attention."""
        del config
        return None

    def receptive_field(self, config: Mamba2Settings) -> int | None:
        """None: the recurrence is unbounded."""
        del config
        return None

    def confounds(self, config: Mamba2Settings) -> dict[str, str]:
        """What decides rankings besides the mixer."""
        path = ssd_scan_path("cpu")
        if torch.cuda.is_available():
            path = f"on cpu: {path}; on cuda: {ssd_scan_path('cuda')}"
        return {
            "short convolution": f"{config.conv_kernel} taps per block" if config.conv_kernel > 1 else "none",
            "position encoding": "none",
            "depth": f"{config.num_hidden_layers} blocks (two stand for one transformer layer)",
            "initialisation": f"A from -1 to -{config.num_heads}; step sizes log-uniform from"
            f" {config.time_step_min:g} to {config.time_step_max:g}; embedding normal, deviation"
            f" {config.initializer_range:g}",
            "kernel path": path,
        }
