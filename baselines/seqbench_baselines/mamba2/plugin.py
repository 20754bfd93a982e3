"""The plugin `mamba2`."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Mamba2Config
from transformers import initialization as init

from seqbench.contracts import Classification, WidthAxis, setting
from seqbench.errors import RequestError
from seqbench.mixers import Chunk, Tree
from seqbench.nn import RMSNorm, widen
from seqbench_baselines.mamba.state_space import StateSpaceMixer, StateSpacePlugin, StateSpaceSettings
from seqbench_kernels.ssd_scan import forward_flops, ssd_scan, ssd_scan_path


@dataclass(frozen=True)
class Mamba2Settings(StateSpaceSettings):
    """Of a Mamba-2; fields bear the names of transformers' Mamba2Config."""

    state_size: int = setting(64, "state per channel", minimum=1)
    num_heads: int = setting(4, "heads of the scan, each with one decay; they divide expand x hidden_size", minimum=1)
    n_groups: int = setting(1, "groups of heads that share input and output maps; they divide the heads", minimum=1)
    extra_head_dim: int = setting(
        0, "channels of a head beyond expand x hidden_size / num_heads, to match parameters finely (may be negative)"
    )


class _Sizes(NamedTuple):
    """Numbers of channels: of a head, of the scan, of its input maps (as of its output maps), of the convolution."""

    head: int
    scan: int
    maps: int
    convolved: int


def _sizes(settings: Any) -> _Sizes:
    head = settings.expand * settings.hidden_size // settings.num_heads + settings.extra_head_dim
    scan, maps = settings.num_heads * head, settings.n_groups * settings.state_size
    return _Sizes(head, scan, maps, scan + 2 * maps)


class Mamba2(StateSpaceMixer):
    """One Mamba-2 mixer, arXiv 2405.21060, section 7.1 and figure 6.

    Carried on: (batch, taps - 1, channels) of the convolution, and (batch, heads, head_dim, state) of the scan.
    """

    settings_class = Mamba2Settings

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        sizes, heads = _sizes(settings), settings.num_heads
        self.conv1d = self.convolution(sizes.convolved)
        self.in_proj = nn.Linear(hidden_size, sizes.scan + sizes.convolved + heads, bias=settings.use_bias)
        self.dt_bias, self.A_log, self.D = (nn.Parameter(torch.empty(heads)) for _ in range(3))
        self.norm = RMSNorm(sizes.scan, settings.norm_epsilon)
        self.out_proj = nn.Linear(sizes.scan, hidden_size, bias=settings.use_bias)
        self._sizes = sizes

    def initialise(self) -> None:
        """A from head to head -1, -2, ..."""
        super().initialise()
        heads = torch.arange(1.0, self.settings.num_heads + 1, device=self.A_log.device)
        init.copy_(self.A_log, heads.log())
        init.ones_(self.D)
        self.draw_step_sizes(self.dt_bias)

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """The scan of the convolved channels, gated and normalised."""
        inputs, memory = (None, None) if state is None else state
        sizes, heads, groups = self._sizes, self.settings.num_heads, self.settings.n_groups
        gate, channels, steps = self.in_proj(hidden).split((sizes.scan, sizes.convolved, heads), dim=-1)
        convolved, inputs = self.activated(widen(channels), inputs, chunk)
        x, B, C = convolved.split((sizes.scan, sizes.maps, sizes.maps), dim=-1)
        # A step of size zero leaves the state as it is.
        steps = chunk.fill(F.softplus(widen(steps) + widen(self.dt_bias)), 0.0)
        B, C = B.unflatten(-1, (groups, -1)), C.unflatten(-1, (groups, -1))
        decays = -widen(self.A_log).exp()
        mixed, memory = ssd_scan(x.unflatten(-1, (heads, -1)), steps, decays, B, C, self.D, memory)
        return self.out_proj(self._gated_norm(mixed.flatten(2), gate).to(hidden.dtype)), (inputs, memory)

    def _gated_norm(self, mixed: Tensor, gate: Tensor) -> Tensor:
        """Root-mean-square norm, per group, of the gated channels, in at least fp32.

        The norm of transformers before 5.23 takes all groups together, other than the authors' code.
        """
        gated = (mixed * F.silu(widen(gate))).unflatten(-1, (self.settings.n_groups, -1))
        normalised = F.rms_norm(gated, gated.shape[-1:], eps=self.norm.epsilon).flatten(-2)
        return normalised * widen(self.norm.weight)

    @classmethod
    def check(cls, settings: Any) -> None:
        """Raise RequestError for sizes that do not divide, and as every state-space mixer does."""
        super().check(settings)
        expand, hidden, heads = settings.expand, settings.hidden_size, settings.num_heads
        if expand * hidden % heads:
            channels = f"the {expand * hidden} channels of expand {expand} x hidden_size {hidden}"
            raise RequestError(f"num_heads must divide {channels}, not {heads}")
        if heads % settings.n_groups:
            raise RequestError(f"n_groups must divide num_heads {heads}, not {settings.n_groups}")
        if _sizes(settings).head < 1:
            least = f"more than {-expand * hidden // heads}, not {settings.extra_head_dim}"
            raise RequestError(f"extra_head_dim must leave each head a channel: {least}")

    @classmethod
    def flops(cls, settings: Any, length: int) -> int:
        """The linear projections, and the products of the scan in chunks as this project computes it."""
        sizes, heads = _sizes(settings), settings.num_heads
        projected = 2 * sizes.scan + sizes.convolved + heads
        scan = forward_flops(length, heads, sizes.head, settings.n_groups, settings.state_size)
        return 2 * length * settings.hidden_size * projected + scan

    @classmethod
    def matrix_parts(cls, settings: Any, parameter_name: str) -> Sequence[int] | None:
        """The fused projection in its parts: gate, channels, B and C, step sizes."""
        if parameter_name != "in_proj.weight":
            return None
        sizes = _sizes(settings)
        return sizes.scan, sizes.scan, sizes.maps, sizes.maps, settings.num_heads

    @classmethod
    def confounds(cls, settings: Any) -> dict[str, str]:
        """Initial decays and the path of the scan."""
        return cls.declared(settings, f"A from -1 to -{settings.num_heads}", ssd_scan_path)


class Mamba2Plugin(StateSpacePlugin):
    """Mamba-2, with transformers' parameters and initialisation."""

    name = "mamba2"
    summary = "state-space model of constant state with one decay per head (Mamba-2; short convolution, no positions)"
    version = "2"
    classification = Classification("2405.21060", 2024, memory=("matrix",), written=("decay",))
    mixer = Mamba2
    published_config = Mamba2Config
    preset_settings = {  # noqa: RUF012 (a class-level constant of the contract)
        "tiny": {"num_hidden_layers": 8},
        # Two layers for each of the 12 of the transformer presets of that size.
        "30m": {"hidden_size": 440, "num_hidden_layers": 24, "num_heads": 16},
        "119m": {"hidden_size": 880, "num_hidden_layers": 24, "num_heads": 32, "state_size": 128},
        # state-spaces/mamba2-130m, with its vocabulary of 50,277 rounded up to a multiple of 16.
        "130m": {"vocab_size": 50288, "hidden_size": 768, "num_hidden_layers": 24, "num_heads": 24, "state_size": 128},
    }
    fine_axis = WidthAxis("extra_head_dim", 1)

    def with_width(self, config: Any, width: int) -> Any:
        """`config` at another hidden size; heads, and then groups, become fewer where they would not divide."""
        channels = config.expand * width
        heads = next(count for count in range(config.num_heads, 0, -1) if channels % count == 0)
        # One head divides the channels on either side of the change.
        widened = super().with_width(dataclasses.replace(config, num_heads=1, n_groups=1), width)
        return dataclasses.replace(widened, num_heads=heads, n_groups=math.gcd(config.n_groups, heads))

    def publishes(self, config: Any) -> bool:
        """Mamba2Config has expand x hidden_size channels, expand a whole number, and no others."""
        return super().publishes(config) and config.extra_head_dim == 0

    def native_fields(self, config: Any) -> dict[str, Any]:
        """With the heads and their groups."""
        own = {"num_heads": config.num_heads, "head_dim": _sizes(config).head, "n_groups": config.n_groups}
        return super().native_fields(config) | own

    def own_settings(self, native: Any) -> dict[str, Any]:
        """Heads and their groups; step sizes with a limit, which no published model has, are refused."""
        if tuple(native.time_step_limit) != (0.0, math.inf):
            raise RequestError(f"time_step_limit {tuple(native.time_step_limit)} is not supported, only (0, infinity)")
        return {"num_heads": native.num_heads, "n_groups": native.n_groups}


Mamba2ForCausalLM = Mamba2Plugin.published_model()
