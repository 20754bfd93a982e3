"""The plugin `mamba`."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import MambaConfig, PreTrainedConfig

from seqbench.contracts import Classification, Flops, WidthAxis, setting
from seqbench.errors import RequestError
from seqbench_baselines.mamba.model import MambaForCausalLM
from seqbench_baselines.mamba.state_space_plugin import NO_SPECIAL_TOKENS, StateSpacePlugin, StateSpaceSettings
from seqbench_kernels.selective_scan import selective_scan_path


@dataclass(frozen=True)
class MambaSettings(StateSpaceSettings):
    """Shape and initialisation of a Mamba; fields bear the names of transformers' MambaConfig."""

    extra_channels: int = setting(
        0, "channels beyond expand x hidden_size, to match parameters finely (may be negative; not a published field)"
    )
    time_step_rank: int = setting(0, "rank of the step-size projection; 0 is hidden_size / 16, rounded up", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels < 1:
            raise RequestError(
                f"extra_channels must leave at least one channel: more than {-self.expand * self.hidden_size} with"
                f" expand {self.expand} and hidden_size {self.hidden_size}, not {self.extra_channels}"
            )

    @property
    def channels(self) -> int:
        """Channels of the convolution and the scan."""
        return super().channels + self.extra_channels

    @property
    def rank(self) -> int:
        """Rank of the step-size projection."""
        return self.time_step_rank or -(-self.hidden_size // 16)


class MambaPlugin(StateSpacePlugin[MambaSettings]):
    """Mamba, with transformers' parameters and initialisation."""

    name = "mamba"
    summary = "selective state-space model of constant state (Mamba; short convolution, no positions)"
    version = "2"
    classification = Classification("2312.00752", 2023, memory=("vector",), written=("decay",))
    config_class = MambaSettings
    presets = {  # noqa: RUF012 (a class-level constant of the contract)
        "tiny": MambaSettings(),
        # Two blocks for each of the 12 layers of the transformer presets of that size.
        "30m": MambaSettings(hidden_size=440, num_hidden_layers=24),
        "119m": MambaSettings(hidden_size=880, num_hidden_layers=24),
    }
    fine_axis = WidthAxis("extra_channels", 1)

    def build(self, config: MambaSettings) -> MambaForCausalLM:
        """A freshly initialised Mamba (transformers' initialisation: S4D-real A, log-uniform step sizes)."""
        fields = dataclasses.asdict(config) | {"time_step_rank": config.rank, "intermediate_size": config.channels}
        del fields["extra_channels"]
        return MambaForCausalLM(MambaConfig(**fields, **NO_SPECIAL_TOKENS))

    def matrix_parts(self, config: MambaSettings, parameter_name: str) -> Sequence[int] | None:
        """The fused projections in their parts (channels and gate; step sizes, B and C); A is a table."""
        if parameter_name.endswith(".in_proj.weight"):
            return config.channels, config.channels
        if parameter_name.endswith(".x_proj.weight"):
            return config.rank, config.state_size, config.state_size
        return () if parameter_name.endswith(".A_log") else None

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

    def scan_path(self, device: str) -> str:
        """The path of the selective scan."""
        return selective_scan_path(device)

    def initial_decays(self, config: MambaSettings) -> str:
        """Those of S4D-real: -1, -2, ... in every channel."""
        del config
        return "S4D-real A"
