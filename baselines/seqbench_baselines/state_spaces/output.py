"""What the state-space layers share: a direct path and a gated output."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from seqbench.mixers import Chunk, Mixer, Tree
from seqbench_baselines.state_spaces.recurrence import diagonal_recurrence, recurrence_flops


class StateSpace(Mixer[Any]):
    """A linear state space per layer; a b', where a and b are maps of gelu(y) and b' is sigmoid(b).

    A subclass says y, which ends with the direct path D x.
    """

    # Prefixes of what is neither a map nor a bias of one.
    tables: Sequence[str] = ()

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        self.D = nn.Parameter(torch.empty(hidden_size))
        self.W_glu = nn.Parameter(torch.empty(2 * hidden_size, hidden_size))
        self.b_glu = nn.Parameter(torch.empty(2 * hidden_size))

    def initialise(self) -> None:
        """The direct path normal, the output as torch begins a linear map."""
        init.normal_(self.D)
        bound = self.hidden_size**-0.5
        init.uniform_(self.W_glu, -bound, bound)
        init.uniform_(self.b_glu, -bound, bound)

    def gated(self, read: Tensor, dtype: torch.dtype) -> Tensor:
        """The output from y; both halves see the same gelu(y), with the error function."""
        return F.glu(F.linear(F.gelu(read.to(dtype)), self.W_glu, self.b_glu), dim=-1)

    @classmethod
    def matrix_parts(cls, settings: Any, parameter_name: str) -> Sequence[int] | None:
        """The two maps of the output; what is said of transitions is a table."""
        if parameter_name == "W_glu":
            return settings.hidden_size, settings.hidden_size
        return () if parameter_name in cls.tables else None

    @classmethod
    def state_words(cls, settings: Any) -> str:
        """What a layer carries on."""
        return f"{settings.state_size} complex numbers per layer"

    @classmethod
    def confounds(cls, settings: Any) -> dict[str, str]:
        """The state, and how it is computed."""
        return {
            "state": cls.state_words(settings),
            "initialisation": "transitions and maps as published",
            "kernel path": "products over chunks in fp32",
        }


class SharedStates(StateSpace):
    """States that all channels write and read: s_t = a s_(t-1) + B x_t, y_t = read_scale Re(C s_t) + D x_t."""

    read_scale: float

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        states = settings.state_size
        self.B_re, self.B_im = (nn.Parameter(torch.empty(states, hidden_size)) for _ in range(2))
        self.C_re, self.C_im = (nn.Parameter(torch.empty(hidden_size, states)) for _ in range(2))

    def transition(self) -> tuple[Tensor, Tensor]:
        """Logarithm of a's size and a's angle, (state_size,) each, in fp32."""
        raise NotImplementedError

    def input_map(self) -> tuple[Tensor, Tensor]:
        """B with its scale, (state_size, hidden_size), real and imaginary part, in fp32."""
        raise NotImplementedError

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """The state after the last real token is carried on, (batch, state_size, 2)."""
        inputs, states = hidden.float(), self.settings.state_size
        before = inputs.new_zeros(inputs.shape[0], 2, states) if state is None else state.transpose(1, 2)
        driven = F.linear(hidden, torch.cat(self.input_map()).to(hidden.dtype)).float().unflatten(-1, (2, states))
        found = diagonal_recurrence(*self.transition(), driven, before)
        out = torch.cat((self.C_re, -self.C_im), dim=1)
        read = self.read_scale * F.linear(found.flatten(2).to(hidden.dtype), out).float() + self.D.float() * inputs
        return self.gated(read, hidden.dtype), chunk.last(found, before).transpose(1, 2)

    @classmethod
    def flops(cls, settings: Any, length: int) -> int:
        """Maps into and out of the states, the recurrence, and the gated output."""
        width = settings.hidden_size
        return 2 * length * width * (4 * settings.state_size + 2 * width) + recurrence_flops(
            length, settings.state_size
        )
