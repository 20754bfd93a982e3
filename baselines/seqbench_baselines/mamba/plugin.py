"""The plugin `mamba`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import MambaConfig
from transformers import initialization as init

from seqbench.contracts import Classification, WidthAxis, setting
from seqbench.errors import RequestError
from seqbench.mixers import Chunk, Tree
from seqbench.nn import widen
from seqbench_baselines.mamba.state_space import StateSpaceMixer, StateSpacePlugin, StateSpaceSettings
from seqbench_kernels.selective_scan import selective_scan, selective_scan_path


@dataclass(frozen=True)
class MambaSettings(StateSpaceSettings):
    """Of a Mamba; fields bear the names of transformers' MambaConfig."""

    extra_channels: int = setting(
        0, "channels beyond expand x hidden_size, to match parameters finely (may be negative; not a published field)"
    )
    time_step_rank: int = setting(0, "rank of the step-size projection; 0 is hidden_size / 16, rounded up", minimum=0)


def channels_of(settings: Any) -> int:
    """Channels of the convolution and the scan."""
    return settings.expand * settings.hidden_size + settings.extra_channels


def rank_of(settings: Any) -> int:
    """Rank of the step-size projection."""
    return settings.time_step_rank or -(-settings.hidden_size // 16)


class Mamba(StateSpaceMixer):
    """One Mamba mixer, arXiv 2312.00752, algorithm 2 and figure 3.

    Carried on: (batch, taps - 1, channels) of the convolution, and (batch, channels, state) of the scan.
    """

    settings_class = MambaSettings

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        channels, rank, state = channels_of(settings), rank_of(settings), settings.state_size
        self.conv1d = self.convolution(channels)
        self.in_proj = nn.Linear(hidden_size, 2 * channels, bias=settings.use_bias)
        self.x_proj = nn.Linear(channels, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, channels)
        self.A_log = nn.Parameter(torch.empty(channels, state))
        self.D = nn.Parameter(torch.empty(channels))
        self.out_proj = nn.Linear(channels, hidden_size, bias=settings.use_bias)

    def initialise(self) -> None:
        """S4D-real A, in every channel -1, -2, ...; section 3.6 for the step sizes."""
        super().initialise()
        states = torch.arange(1.0, self.settings.state_size + 1, device=self.A_log.device)
        init.copy_(self.A_log, states.log().expand_as(self.A_log))
        init.ones_(self.D)
        bound = rank_of(self.settings) ** -0.5
        init.uniform_(self.dt_proj.weight, -bound, bound)
        self.draw_step_sizes(self.dt_proj.bias)

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """The scan of the convolved channels, gated."""
        inputs, memory = (None, None) if state is None else state
        rank, size = rank_of(self.settings), self.settings.state_size
        channels, gate = self.in_proj(hidden).chunk(2, dim=-1)
        convolved, inputs = self.activated(widen(channels), inputs, chunk)
        narrow, B, C = self.x_proj(convolved.to(hidden.dtype)).split((rank, size, size), dim=-1)
        steps = F.softplus(widen(F.linear(narrow, self.dt_proj.weight)) + widen(self.dt_proj.bias))
        # A step of size zero leaves the state as it is.
        steps = chunk.fill(steps, 0.0)
        mixed, memory = selective_scan(convolved, steps, -widen(self.A_log).exp(), B, C, self.D, memory)
        return self.out_proj((mixed * F.silu(widen(gate))).to(hidden.dtype)), (inputs, memory)

    @classmethod
    def check(cls, settings: Any) -> None:
        """Raise RequestError where no channel is left, and as every state-space mixer does."""
        super().check(settings)
        extra, expand, hidden = settings.extra_channels, settings.expand, settings.hidden_size
        if channels_of(settings) < 1:
            least = f"more than {-expand * hidden} with expand {expand} and hidden_size {hidden}, not {extra}"
            raise RequestError(f"extra_channels must leave at least one channel: {least}")

    @classmethod
    def matrix_parts(cls, settings: Any, parameter_name: str) -> Sequence[int] | None:
        """The fused projections in their parts (channels and gate; step sizes, B and C); A is a table."""
        if parameter_name == "in_proj.weight":
            return channels_of(settings), channels_of(settings)
        if parameter_name == "x_proj.weight":
            return rank_of(settings), settings.state_size, settings.state_size
        return () if parameter_name == "A_log" else None

    @classmethod
    def confounds(cls, settings: Any) -> dict[str, str]:
        """Initial decays and the path of the scan."""
        return cls.declared(settings, "S4D-real A", selective_scan_path)


class MambaPlugin(StateSpacePlugin):
    """Mamba, with transformers' parameters and initialisation."""

    name = "mamba"
    summary = "selective state-space model of constant state (Mamba; short convolution, no positions)"
    version = "3"
    classification = Classification("2312.00752", 2023, memory=("vector",), written=("decay",))
    mixer = Mamba
    published_config = MambaConfig
    preset_settings = {  # noqa: RUF012 (a class-level constant of the contract)
        "tiny": {"num_hidden_layers": 8},
        # Two layers for each of the 12 of the transformer presets of that size.
        "30m": {"hidden_size": 440, "num_hidden_layers": 24},
        "119m": {"hidden_size": 880, "num_hidden_layers": 24},
    }
    fine_axis = WidthAxis("extra_channels", 1)

    def native_fields(self, config: Any) -> dict[str, Any]:
        """With the number of channels, which MambaConfig takes besides its fields."""
        own = {"time_step_rank": rank_of(config), "intermediate_size": channels_of(config)}
        return super().native_fields(config) | own

    def own_settings(self, native: Any) -> dict[str, Any]:
        """The number of channels need not be a multiple of the hidden size."""
        extra = int(native.intermediate_size) - native.expand * native.hidden_size
        return {"extra_channels": extra, "time_step_rank": int(native.time_step_rank)}


MambaForCausalLM = MambaPlugin.published_model()
