"""The plugin `s4d`."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from seqbench.contracts import Classification, setting
from seqbench.errors import RequestError
from seqbench.mixers import Chunk, MixerPlugin, Tree
from seqbench_baselines.precision import full_precision
from seqbench_baselines.state_spaces.filters import Filters
from seqbench_baselines.state_spaces.output import StateSpace
from seqbench_baselines.state_spaces.recurrence import chunks_of
from seqbench_baselines.state_spaces.s5 import LARGEST_STEP, SMALLEST_STEP


@dataclass(frozen=True)
class S4DSettings:
    """Of the states."""

    channel_states: int = setting(64, "real states of a channel, an even number: half as many complex ones", minimum=2)


class S4D(StateSpace):
    """Per channel s_t = exp(d A) s_(t-1) + (exp(d A) - 1) / A x_t, y_t = 2 Re(sum C s_t) + D x_t."""

    settings_class = S4DSettings
    tables = ("log_A_real", "A_imag", "C")

    def __init__(self, hidden_size: int, settings: Any) -> None:
        super().__init__(hidden_size, settings)
        states = settings.channel_states // 2
        self.log_dt = nn.Parameter(torch.empty(hidden_size))
        self.log_A_real, self.A_imag = (nn.Parameter(torch.empty(hidden_size, states)) for _ in range(2))
        self.C = nn.Parameter(torch.empty(hidden_size, states, 2))

    def initialise(self) -> None:
        """S4D-Lin: A = -1/2 + i pi n; C complex normal; steps log-uniform."""
        super().initialise()
        init.uniform_(self.log_dt, math.log(SMALLEST_STEP), math.log(LARGEST_STEP))
        init.constant_(self.log_A_real, math.log(0.5))
        init.copy_(self.A_imag, math.pi * torch.arange(self.A_imag.shape[1]).expand_as(self.A_imag))
        init.normal_(self.C, std=0.5**0.5)

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        """The states after the last real token are carried on, (batch, hidden_size, channel_states / 2, 2)."""
        inputs = hidden.float()
        before = inputs.new_zeros(inputs.shape[0], *self.C.shape) if state is None else state
        with full_precision(inputs):
            read, after = self._scan(chunk.fill(inputs, 0.0), before, chunk)
        return self.gated(read, hidden.dtype), after

    def _scan(self, inputs: Tensor, before: Tensor, chunk: Chunk) -> tuple[Tensor, Tensor]:
        """Y (batch, length, channels), by products over chunks, and the states after each row's last real token."""
        batch, length, width = inputs.shape
        count, size = chunks_of(length)
        filters = Filters(self, size)
        columns = F.pad(inputs, (0, 0, 0, count * size - length)).view(batch, count, size, width).permute(3, 2, 0, 1)
        added = (filters.to_end @ columns.reshape(width, size, -1)).unflatten(2, (batch, count))
        starts = [before.permute(1, 3, 2, 0).flatten(1, 2)]
        whole = torch.full((batch,), size, device=inputs.device)
        for index in range(count - 1):
            starts.append(filters.turned(starts[-1], whole) + added[..., index])
        states = torch.stack(starts, dim=-1)
        joined = torch.cat((columns, states), dim=1).flatten(2)
        read = (torch.cat((filters.inside, filters.from_start), dim=2) @ joined).view(width, size, batch, count)
        read = read.permute(2, 3, 1, 0).reshape(batch, count * size, width)[:, :length]
        after = self._after(filters, inputs, states, chunk.added)
        return read, after.view(width, 2, -1, batch).permute(3, 0, 2, 1)

    def _after(self, filters: Filters, inputs: Tensor, states: Tensor, lengths: Tensor) -> Tensor:
        """The states after so many tokens of each row: those before the last chunk, and what it adds up to there."""
        size = filters.inside.shape[1]
        last = (lengths - 1).clamp(min=0) // size
        start = states.gather(3, last.view(1, 1, -1, 1).expand(*states.shape[:3], 1)).squeeze(3)
        place = lengths.unsqueeze(1) - size + torch.arange(size, device=lengths.device)
        tokens = inputs.gather(1, place.clamp(min=0).unsqueeze(-1).expand(-1, -1, inputs.shape[2]))
        tokens = tokens.masked_fill((place < (last * size).unsqueeze(1)).unsqueeze(-1), 0.0)
        return filters.turned(start, lengths - last * size) + filters.to_end @ tokens.permute(2, 1, 0)

    @classmethod
    def check(cls, settings: Any) -> None:
        """Complex states are pairs."""
        if settings.channel_states % 2:
            raise RequestError(f"channel_states={settings.channel_states} is odd; take {settings.channel_states + 1}")

    @classmethod
    def flops(cls, settings: Any, length: int) -> int:
        """The filters and states of chunks, the states at the end, and the gated output."""
        (count, size), width, states = chunks_of(length), settings.hidden_size, settings.channel_states
        scan = 2 * width * size * (count * (size + 2 * states) + states)
        return 4 * length * width**2 + scan

    @classmethod
    def state_words(cls, settings: Any) -> str:
        """Of every channel."""
        return f"{settings.channel_states // 2} complex numbers per channel and layer"


class S4DPlugin(MixerPlugin):
    """S4D (Gu et al., arXiv 2206.11893): a diagonal state space per channel, a filter as long as the sequence.

    s_t = exp(d A) s_(t-1) + (exp(d A) - 1) / A x_t, y_t = 2 Re(sum C s_t) + D x_t per channel, and a gated map of
    gelu(y). Nothing of it depends on what the tokens say. Our reading: the kit's block around it, whose feed-forward
    layers the published models do not have. The authors train d and A at a lower rate; here it is one for all.
    """

    name = "s4d"
    summary = "decoder of diagonal state spaces, one per channel (S4D; no positions)"
    version = "1"
    classification = Classification("2206.11893", 2022, memory=("vector",), written=("decay",))
    mixer = S4D
