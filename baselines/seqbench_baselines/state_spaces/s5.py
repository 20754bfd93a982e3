"""The plugin `s5`."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from seqbench.contracts import Classification, setting
from seqbench.mixers import MixerPlugin
from seqbench_baselines.state_spaces.output import SharedStates
from seqbench_baselines.state_spaces.recurrence import exponential_less_one

# The real part of an eigenvalue is at most this: an option of the authors' code, which keeps states from growing.
_LARGEST_REAL = -1e-4
# Step sizes at first.
SMALLEST_STEP, LARGEST_STEP = 1e-3, 1e-1


@dataclass(frozen=True)
class S5Settings:
    """Of the states."""

    state_size: int = setting(64, "complex states of a layer, one of each conjugate pair", minimum=1)


class S5(SharedStates):
    """s_t = exp(l d) s_(t-1) + (exp(l d) - 1) / l B x_t, y_t = 2 Re(C s_t) + D x_t, eigenvalues l and steps d."""

    settings_class = S5Settings
    # Each state stands for a conjugate pair, whose imaginary parts cancel.
    read_scale = 2.0

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.Lambda_re, self.Lambda_im, self.log_step = (
            nn.Parameter(torch.empty(settings.state_size)) for _ in range(3)
        )

    def initialise(self) -> None:
        """Eigenvalues of HiPPO-LegS's normal part, maps in its eigenvectors, and steps log-uniform."""
        super().initialise()
        states = self.settings.state_size
        angles, vectors = _normal_part(2 * states)
        inputs = torch.randn(2 * states, self.hidden_size, dtype=torch.float64) / self.hidden_size**0.5
        outputs = torch.randn(self.hidden_size, 2 * states, dtype=torch.float64) / (2 * states) ** 0.5
        # The upper half of the angles, in ascending order, is one of each pair.
        vectors = vectors[:, states:]
        init.copy_(self.Lambda_re, torch.full((states,), -0.5))
        init.copy_(self.Lambda_im, angles[states:])
        by_input, by_output = vectors.mH @ inputs.to(vectors.dtype), outputs.to(vectors.dtype) @ vectors
        for parameter, value in (
            (self.B_re, by_input.real),
            (self.B_im, by_input.imag),
            (self.C_re, by_output.real),
            (self.C_im, by_output.imag),
        ):
            init.copy_(parameter, value)
        init.uniform_(self.log_step, math.log(SMALLEST_STEP), math.log(LARGEST_STEP))

    def transition(self) -> tuple[Tensor, Tensor]:
        """No gradient passes an eigenvalue that is held back."""
        step = self.log_step.float().exp()
        return self.Lambda_re.float().clamp(max=_LARGEST_REAL) * step, self.Lambda_im.float() * step

    def input_map(self) -> tuple[Tensor, Tensor]:
        """B behind the zero-order hold, (exp(l d) - 1) / l."""
        real, imaginary = exponential_less_one(*self.transition())
        below = self.Lambda_re.float().clamp(max=_LARGEST_REAL), self.Lambda_im.float()
        square = below[0].square() + below[1].square()
        hold_re = ((real * below[0] + imaginary * below[1]) / square).unsqueeze(1)
        hold_im = ((imaginary * below[0] - real * below[1]) / square).unsqueeze(1)
        B_re, B_im = self.B_re.float(), self.B_im.float()
        return hold_re * B_re - hold_im * B_im, hold_re * B_im + hold_im * B_re


def _normal_part(size: int) -> tuple[Tensor, Tensor]:
    """Imaginary parts of the eigenvalues, ascending, and eigenvectors of HiPPO-LegS plus its term of low rank."""
    root = (2 * torch.arange(size, dtype=torch.float64) + 1).sqrt()
    # A + p p^T is -1/2 on the diagonal and antisymmetric beside it: A holds -root_i root_j below, p p^T half of it.
    below = -0.5 * torch.outer(root, root).tril(-1)
    return torch.linalg.eigh(-1j * (below - below.mT))


class S5Plugin(MixerPlugin):
    """S5 (Smith et al., arXiv 2208.04933): one state space with diagonal complex transitions for all channels.

    s_t = exp(l d) s_(t-1) + (exp(l d) - 1) / l B x_t, y_t = 2 Re(C s_t) + D x_t, and a gated map of gelu(y). Nothing of
    it depends on what the tokens say. Our readings: gelu with the error function, the option that gates by a second
    map, the kit's block around it. The authors train eigenvalues and steps at a lower rate; here it is one for all.
    """

    name = "s5"
    summary = "decoder of diagonal state spaces, one for all channels (S5; no positions)"
    version = "1"
    classification = Classification("2208.04933", 2022, memory=("vector",), written=("decay",))
    mixer = S5
    preset_settings = {"30m": {"state_size": 224}, "119m": {"state_size": 448}}  # noqa: RUF012 (of the contract)
