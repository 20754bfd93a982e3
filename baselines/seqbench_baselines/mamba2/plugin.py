"""The plugin `mamba2`."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import Mamba2Config, PreTrainedConfig

from seqbench.contracts import Classification, Flops, WidthAxis, setting
from seqbench.errors import RequestError
from seqbench_baselines.mamba.state_space_plugin import NO_SPECIAL_TOKENS, StateSpacePlugin, StateSpaceSettings
from seqbench_baselines.mamba2.model import Mamba2ForCausalLM
from seqbench_kernels.ssd_scan import backward_flops, forward_flops, ssd_scan_path


@dataclass(frozen=True)
class Mamba2Settings(StateSpaceSettings):
    """Shape and initialisation of a Mamba-2; fields bear the names of transformers' Mamba2Config."""

    state_size: int = setting(64, "state per channel", minimum=1)
    num_heads: int = setting(4, "heads of the scan, each with one decay; they divide its channels", minimum=1)
    n_groups: int = setting(1, "groups of heads that share input and output maps; they divide the heads", minimum=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels % self.num_heads:
            raise RequestError(
                f"num_heads must divide the {self.channels} channels of expand {self.expand} x hidden_size"
                f" {self.hidden_size}, not {self.num_heads}"
            )
        if self.num_heads % self.n_groups:
            raise RequestError(f"n_groups must divide num_heads {self.num_heads}, not {self.n_groups}")

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.channels // self.num_heads

    @property
    def convolved(self) -> int:
        """Channels of the convolution: those of the scan, and its input and output maps."""
        return self.channels + 2 * self.n_groups * self.state_size


class Mamba2Plugin(StateSpacePlugin[Mamba2Settings]):
    """Mamba-2, with transformers' parameters and initialisation."""

    name = "mamba2"
    summary = "state-space model of constant state with one decay per head (Mamba-2; short convolution, no positions)"
    version = "1"
    classification = Classification("2405.21060", 2024, memory=("matrix",), written=("decay",))
    config_class = Mamba2Settings
    presets = {  # noqa: RUF012 (a class-level constant of the contract)
        "tiny": Mamba2Settings(),
        # Two blocks for each of the 12 layers of the transformer presets of that size.
        "30m": Mamba2Settings(hidden_size=440, num_hidden_layers=24, num_heads=16, state_size=64),
        "119m": Mamba2Settings(hidden_size=880, num_hidden_layers=24, num_heads=32, state_size=128),
        # state-spaces/mamba2-130m, with its vocabulary of 50,277 rounded up to a multiple of 16.
        "130m": Mamba2Settings(vocab_size=50288, hidden_size=768, num_hidden_layers=24, num_heads=24, state_size=128),
    }
    fine_axis = WidthAxis("state_size", 1)

    def build(self, config: Mamba2Settings) -> Mamba2ForCausalLM:
        """A freshly initialised Mamba-2 (transformers' initialisation: A from 1 to the heads, log-uniform steps)."""
        return Mamba2ForCausalLM(
            Mamba2Config(
                **dataclasses.asdict(config),
                head_dim=config.head_dim,
                # transformers raises smaller initial steps to 1e-4 unless told otherwise.
                time_step_floor=min(1e-4, config.time_step_min),
                **NO_SPECIAL_TOKENS,
            )
        )

    def with_width(self, config: Mamba2Settings, width: int) -> Mamba2Settings:
        """`config` at another hidden size; heads, and then groups, become fewer where they would not divide."""
        channels = config.expand * width
        heads = next(count for count in range(config.num_heads, 0, -1) if channels % count == 0)
        groups = math.gcd(config.n_groups, heads)
        return dataclasses.replace(config, hidden_size=width, num_heads=heads, n_groups=groups)

    def matrix_parts(self, config: Mamba2Settings, parameter_name: str) -> Sequence[int] | None:
        """The fused projection in its parts: gate, channels, B and C, step sizes."""
        if not parameter_name.endswith(".in_proj.weight"):
            return None
        maps = config.n_groups * config.state_size
        return config.channels, config.channels, maps, maps, config.num_heads

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

    def scan_path(self, device: str) -> str:
        """The path of the chunked scan."""
        return ssd_scan_path(device)

    def initial_decays(self, config: Mamba2Settings) -> str:
        """-1, -2, ... from head to head."""
        return f"A from -1 to -{config.num_heads}"
