"""What the plugins of Mamba and Mamba-2 share: settings, accounting and declarations."""

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from seqbench.contracts import ModelPlugin, WidthAxis, check_settings, setting
from seqbench.errors import RequestError
from seqbench.nn import LARGEST_DEPTH

# transformers' defaults name the first tokens, which are ordinary bytes here.
NO_SPECIAL_TOKENS: dict[str, Any] = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}


@dataclass(frozen=True)
class StateSpaceSettings:
    """Shape and initialisation; fields bear the names of transformers' configs."""

    vocab_size: int = setting(384, "token ids; follows from the task in a run", minimum=1)
    hidden_size: int = setting(64, "size of the residual stream", minimum=1)
    num_hidden_layers: int = setting(
        8, "blocks; as published, two stand for one transformer layer", minimum=1, maximum=LARGEST_DEPTH
    )
    expand: int = setting(2, "channels of the scan per unit of the hidden size", minimum=1)
    state_size: int = setting(16, "state per channel", minimum=1)
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
        if self.time_step_min > self.time_step_max:
            raise RequestError(
                f"time_step_min ({self.time_step_min:g}) must not exceed time_step_max ({self.time_step_max:g})"
            )

    @property
    def channels(self) -> int:
        """Channels of the scan."""
        return self.expand * self.hidden_size

    @property
    def convolved(self) -> int:
        """Channels of the convolution: those of the scan."""
        return self.channels


Settings = TypeVar("Settings", bound=StateSpaceSettings)


class StateSpacePlugin(ModelPlugin[Settings], Generic[Settings]):
    """A model of blocks with a short convolution and a scan, whose state has one size at every length."""

    width_axis = WidthAxis("hidden_size", 8)

    def with_vocabulary(self, config: Settings, vocab_size: int) -> Settings:
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

    def state_bytes(self, config: Settings, sequence_length: int) -> int:
        """Convolution and scan states, and the number of tokens seen; the same at every length."""
        del sequence_length
        seen = 8
        per_layer = config.convolved * (config.conv_kernel - 1) + config.channels * config.state_size
        return 4 * config.num_hidden_layers * per_layer + seen

    def attention_reach(self, config: Settings) -> int | None:
        """None: no attention."""
        del config
        return None

    def receptive_field(self, config: Settings) -> int | None:
        """None: the recurrence is unbounded."""
        del config
        return None

    def confounds(self, config: Settings) -> dict[str, str]:
        """What decides rankings besides the mixer."""
        path = self.scan_path("cpu")
        if torch.cuda.is_available():
            path = f"on cpu: {path}; on cuda: {self.scan_path('cuda')}"
        return {
            "short convolution": f"{config.conv_kernel} taps per block" if config.conv_kernel > 1 else "none",
            "position encoding": "none",
            "depth": f"{config.num_hidden_layers} blocks (two stand for one transformer layer)",
            "feed-forward": "none",
            "norm": "rms, before each part",
            "initialisation": f"{self.initial_decays(config)}; step sizes log-uniform from"
            f" {config.time_step_min:g} to {config.time_step_max:g}; embedding normal, deviation"
            f" {config.initializer_range:g}",
            "kernel path": path,
        }

    @abstractmethod
    def scan_path(self, device: str) -> str:
        """How the scan is computed on a device, in words."""

    @abstractmethod
    def initial_decays(self, config: Settings) -> str:
        """What A is initialised to, in words."""
