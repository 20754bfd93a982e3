"""The plugin `lru`."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from seqbench.contracts import Classification, setting
from seqbench.errors import RequestError
from seqbench.mixers import MixerPlugin
from seqbench_baselines.state_spaces.output import SharedStates

# Keeps the logarithms of draws finite.
_LEAST_DRAW = 1e-6


@dataclass(frozen=True)
class LRUSettings:
    """Of the states, and of the ring that their factors are drawn from."""

    state_size: int = setting(64, "complex states of a layer", minimum=1)
    smallest_radius: float = setting(0.0, "smallest size of a state's factor at first", minimum=0, maximum=1)
    largest_radius: float = setting(1.0, "largest size of a state's factor at first", minimum=0, maximum=1)
    largest_phase: float = setting(2 * math.pi, "largest angle of a state's factor at first", minimum=0)


class LRU(SharedStates):
    """s_t = a s_(t-1) + c (B x_t), y_t = Re(C s_t) + D x_t with a = exp(-exp(nu_log) + i exp(theta_log))."""

    settings_class = LRUSettings
    read_scale = 1.0

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.nu_log, self.theta_log, self.gamma_log = (nn.Parameter(torch.empty(settings.state_size)) for _ in range(3))

    def initialise(self) -> None:
        """Factors uniform on the ring, c such that white noise keeps its size, and maps normal."""
        super().initialise()
        small, large = self.settings.smallest_radius**2, self.settings.largest_radius**2
        draw, phase = (torch.rand_like(self.nu_log).clamp(_LEAST_DRAW, 1 - _LEAST_DRAW) for _ in range(2))
        square = draw * (large - small) + small
        init.copy_(self.nu_log, (-0.5 * square.log()).log())
        init.copy_(self.theta_log, (self.settings.largest_phase * phase).log())
        init.copy_(self.gamma_log, 0.5 * (1 - square).log())
        for parameter in (self.B_re, self.B_im):
            init.normal_(parameter, std=(2 * self.hidden_size) ** -0.5)
        for parameter in (self.C_re, self.C_im):
            init.normal_(parameter, std=self.settings.state_size**-0.5)

    def transition(self) -> tuple[Tensor, Tensor]:
        """Of a size below 1, whatever the parameters are."""
        return -self.nu_log.float().exp(), self.theta_log.float().exp()

    def input_map(self) -> tuple[Tensor, Tensor]:
        """B times exp(gamma_log)."""
        scale = self.gamma_log.float().exp().unsqueeze(1)
        return scale * self.B_re.float(), scale * self.B_im.float()

    @classmethod
    def check(cls, settings: Any) -> None:
        """A ring has an inside."""
        if settings.smallest_radius >= settings.largest_radius:
            raise RequestError(
                f"smallest_radius={settings.smallest_radius:g} is not below largest_radius={settings.largest_radius:g}"
            )


class LRUPlugin(MixerPlugin):
    """The linear recurrent unit (Orvieto et al., arXiv 2303.06349): complex states that fade at rates of their own.

    s_t = a s_(t-1) + exp(gamma_log) B x_t with a = exp(-exp(nu_log) + i exp(theta_log)), y_t = Re(C s_t) + D x_t, and a
    gated map of gelu(y). Nothing of it depends on what the tokens say. Our readings: gelu with the error function, the
    kit's block around it. The paper trains a and gamma at a lower rate and without decay; here without decay alone.
    """

    name = "lru"
    summary = "decoder of linear recurrences with complex factors (LRU; no positions)"
    version = "1"
    classification = Classification("2303.06349", 2023, memory=("vector",), written=("decay",))
    mixer = LRU
    preset_settings = {"30m": {"state_size": 224}, "119m": {"state_size": 448}}  # noqa: RUF012 (of the contract)
