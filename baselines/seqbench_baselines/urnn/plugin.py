"""The plugin `urnn`."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from seqbench.contracts import Classification, setting
from seqbench.mixers import Chunk, Mixer, MixerPlugin, Tree
from seqbench_baselines.precision import full_precision

# Inside the root of a complex number's size, whose gradient at 0 would be infinite.
_LEAST_SQUARE = 1e-12


@dataclass(frozen=True)
class URNNSettings:
    """Of the state."""

    state_size: int = setting(64, "complex numbers that a layer carries on", minimum=1)


class URNN(Mixer[Any]):
    """h_t = modReLU(W h_(t-1) + V x_t), W = D3 R2 F^-1 D2 P R1 F D1 unitary; U [Re h; Im h] + b.

    D are phases, R reflections, F the Fourier transform, P a permutation, the same in every layer.
    """

    settings_class = URNNSettings

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        states = settings.state_size
        # Entry j of what is permuted is entry permutation[j] of what was: fixed, and no parameter.
        self.permutation: Sequence[int] = random.Random(0).sample(range(states), states)
        self.theta = nn.Parameter(torch.empty(3, states))
        self.reflection = nn.Parameter(torch.empty(2, states, 2))
        self.V_re, self.V_im = (nn.Parameter(torch.empty(states, hidden_size)) for _ in range(2))
        self.h0 = nn.Parameter(torch.empty(states, 2))
        self.b_mod = nn.Parameter(torch.empty(states))
        self.U = nn.Parameter(torch.empty(hidden_size, 2 * states))
        self.b_out = nn.Parameter(torch.empty(hidden_size))

    def initialise(self) -> None:
        """Phases and reflections as in the paper; the rest as in the authors' code."""
        states = self.settings.state_size
        init.uniform_(self.theta, -math.pi, math.pi)
        init.uniform_(self.reflection, -1.0, 1.0)
        for parameter in (self.V_re, self.V_im, self.U):
            bound = (6 / sum(parameter.shape)) ** 0.5
            init.uniform_(parameter, -bound, bound)
        init.uniform_(self.h0, -((3 / states) ** 0.5), (3 / states) ** 0.5)
        init.uniform_(self.b_mod, -0.01, 0.01)
        init.zeros_(self.b_out)

    def transition(self, states: Tensor) -> Tensor:
        """W of complex states (..., state_size)."""
        theta, reflection = self.theta.float(), torch.view_as_complex(self.reflection.float())
        phases = torch.polar(torch.ones_like(theta), theta)
        order = torch.tensor(self.permutation, device=states.device)
        found = torch.fft.fft(states * phases[0], norm="ortho")
        found = _reflected(found, reflection[0])[..., order] * phases[1]
        return _reflected(torch.fft.ifft(found, norm="ortho"), reflection[1]) * phases[2]

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """The state after the last real token is carried on, (batch, state_size, 2); before the first it is learned."""
        size = self.settings.state_size
        before = self.h0.float().expand(hidden.shape[0], -1, -1) if state is None else state
        driven = F.linear(hidden, torch.cat((self.V_re, self.V_im))).float()
        with full_precision(driven):
            # Real parts before imaginary ones, rows of W's real form: the image of 1, and that of i beside it.
            image = self.transition(
                torch.complex(*(torch.eye(size, device=hidden.device, dtype=driven.dtype) * part for part in (1, 0)))
            )
            matrix = torch.cat(
                (torch.cat((image.real, image.imag), dim=1), torch.cat((-image.imag, image.real), dim=1)), dim=0
            )
            current, found = before.transpose(1, 2).flatten(1), []
            for inputs in driven.unbind(1):
                current = self._shrunk(torch.addmm(inputs, current, matrix))
                found.append(current)
        states = torch.stack(found, dim=1)
        output = F.linear(states.to(hidden.dtype), self.U, self.b_out)
        return output, chunk.last(states.unflatten(2, (2, size)).transpose(2, 3), before)

    def _shrunk(self, states: Tensor) -> Tensor:
        """ModReLU of (batch, 2 x state_size): the size and a bias, rectified, at the angle that it had."""
        real, imaginary = states.chunk(2, dim=-1)
        size = (real.square() + imaginary.square() + _LEAST_SQUARE).sqrt()
        factor = (size + self.b_mod.float()).relu() / size
        return states * torch.cat((factor, factor), dim=-1)

    @classmethod
    def flops(cls, settings: Any, length: int) -> int:
        """Maps into and out of the state, and W as a matrix; its Fourier transforms, once a call, are not products."""
        return 8 * length * settings.state_size * (settings.hidden_size + settings.state_size)

    @classmethod
    def matrix_parts(cls, settings: Any, parameter_name: str) -> Sequence[int] | None:
        """Phases, reflections and the first state are tables; the map out is of real and imaginary parts."""
        return () if parameter_name in ("theta", "reflection", "h0") else None

    @classmethod
    def confounds(cls, settings: Any) -> dict[str, str]:
        """The state, and that tokens are computed one after the other."""
        return {
            "state": f"{settings.state_size} complex numbers per layer, never forgotten",
            "initialisation": "as published",
            "kernel path": "one token after the other",
        }


def _reflected(states: Tensor, vector: Tensor) -> Tensor:
    """(1 - 2 v v^H / |v|^2) of complex states (..., size)."""
    along = (states * vector.conj()).sum(dim=-1, keepdim=True) / vector.abs().square().sum()
    return states - 2 * along * vector


class URNNPlugin(MixerPlugin):
    """The unitary recurrent network (Arjovsky et al., arXiv 1511.06464): a transition that keeps every length.

    h_t = modReLU(W h_(t-1) + V x_t) with W = D3 R2 F^-1 D2 P R1 F D1, and U [Re h; Im h] + b. The paper's formula: the
    authors' last code leaves the Fourier transforms out and adds a scale. Not linear, so one token after the other.
    Nothing is forgotten, and the state grows with the length: clip gradients. Our readings: the kit's block around it
    (the paper's network is one such layer), one permutation for all layers.
    """

    name = "urnn"
    summary = "decoder of unitary recurrences (uRNN; no positions)"
    version = "1"
    classification = Classification("1511.06464", 2015, memory=("vector",))
    mixer = URNN
    preset_settings = {"30m": {"state_size": 128}, "119m": {"state_size": 256}}  # noqa: RUF012 (of the contract)
