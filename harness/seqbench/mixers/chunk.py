"""The tokens of one call as a mixer sees them: real ones at the front of each row, and what follows from that."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqbench.mixers.state import Tree
from seqbench.nn import rotary_tables


class Handed(NamedTuple):
    """What a layer hands to the next one besides the residual stream.

    Attributes:
        stream: what the mixers say, a tree of tensors.
        auxiliary: (batch,), the auxiliary losses of the layers so far; None where no mixer has had any.
    """

    stream: Tree = None
    auxiliary: Tensor | None = None


_NOTHING = Handed()


@dataclass(frozen=True, eq=False)
class Chunk:
    """Where the real tokens of a call are, and which.

    A row's real tokens stand at its front; what follows them is padding, of which nothing may enter a state. A row may
    hold no real token at all: its state stays as it was.

    Attributes:
        input_ids: (batch, length) int64, the token ids, for layers that look something up by them.
        before: (batch,) int64, real tokens of each row in earlier calls.
        lengths: (batch,) int64, real tokens of each row in this call; None when every place is real.
        handed: what the layer before handed on besides the residual stream.
        first: whether no row has had a token in an earlier call; `before` is then zero.
        attention: the implementation of attention that the user of transformers chose, "sdpa" unless said.
    """

    input_ids: Tensor
    before: Tensor
    lengths: Tensor | None
    handed: Handed = _NOTHING
    first: bool = False
    attention: str = "sdpa"
    _shared: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """What `compute` returns, computed by the first layer of this call that asks for `key`; without gradients.

        For what all layers need alike: tables of positions, masks.
        """
        if key not in self._shared:
            with torch.no_grad():
                self._shared[key] = compute()
        return self._shared[key]

    def rotary(self, size: int, theta: float) -> tuple[Tensor, Tensor]:
        """`rotary_tables` of the tokens' positions, (batch or 1, length, size), computed once per call."""

        def tables() -> tuple[Tensor, Tensor]:
            return rotary_tables(self.positions[:1] if self.first else self.positions, size, theta)

        return self.once(("rotary", size, theta), tables)

    def prefix_valid(self, kept: int) -> Tensor | None:
        """(batch, kept) bool, which of the places that `newest` keeps hold a token before this call; None if all do."""

        def find() -> Tensor | None:
            valid = torch.arange(kept, device=self.before.device) >= kept - self.before.unsqueeze(1)
            return None if not torch.compiler.is_compiling() and bool(valid.all()) else valid

        return self.once(("prefix_valid", kept), find)

    @property
    def positions(self) -> Tensor:
        """(batch, length) int64, positions of the tokens in their rows; padding counts on."""
        return self.once("positions", lambda: self.before.unsqueeze(1) + self._places())

    @property
    def real(self) -> Tensor | None:
        """(batch, length) bool, true for real tokens; None when all are."""
        lengths = self.lengths
        return None if lengths is None else self.once("real", lambda: self._places() < lengths.unsqueeze(1))

    @property
    def added(self) -> Tensor:
        """(batch,) int64, real tokens of each row in this call."""
        return torch.full_like(self.before, self.input_ids.shape[1]) if self.lengths is None else self.lengths

    @property
    def stream(self) -> Tree:
        """The tree of tensors that the mixer before handed on; None in the first layer."""
        return self.handed.stream

    def after(self, handed: Handed) -> Chunk:
        """The same tokens for the next layer."""
        return self if handed is self.handed else dataclasses.replace(self, handed=handed)

    def _places(self) -> Tensor:
        return torch.arange(self.input_ids.shape[1], device=self.input_ids.device)

    def fill(self, values: Tensor, neutral: float) -> Tensor:
        """`values` (batch, length, ...) with `neutral` in place of padding.

        A recurrence whose decay is filled with 1 and whose input with 0 ends at each row's last real token.
        """
        if self.real is None:
            return values
        real = self.real.reshape(*self.real.shape, *(1,) * (values.dim() - 2))
        return values.masked_fill(~real, neutral)

    def last(self, values: Tensor, before: Tensor) -> Tensor:
        """(batch, ...): `values` (batch, length, ...) at each row's last real token; `before` (batch, ...) for none.

        For mixers whose states are known after every token, such as torch's recurrent layers.
        """
        if self.lengths is None:
            return values[:, -1]
        place = (self.lengths - 1).clamp(min=0).reshape(-1, *(1,) * (values.dim() - 1))
        found = values.gather(1, place.expand(-1, 1, *values.shape[2:])).squeeze(1)
        return torch.where(self.lengths.reshape(-1, *(1,) * (before.dim() - 1)) > 0, found, before)

    def newest(self, values: Tensor, before: Tensor | None, places: int) -> Tensor:
        """(batch, places, ...): the newest of `before` (batch, kept, ...) and of the real `values`, newest last.

        Zeros stand for what a row has not seen yet; None for `before` is nothing seen. It is what a convolution of
        places + 1 taps carries on.
        """
        if before is not None:
            values = torch.cat((before.to(values.dtype), values), dim=1)
        # Of a row without real tokens the places end before `values`, in front of which there may be fewer.
        front = places if self.lengths is not None else max(0, places - values.shape[1])
        extended = values
        if front:
            extended = torch.cat((values.new_zeros(values.shape[0], front, *values.shape[2:]), values), dim=1)
        if self.lengths is None:
            return extended[:, extended.shape[1] - places :]
        last = extended.shape[1] - self.input_ids.shape[1] + self.lengths
        index = last.unsqueeze(1) - places + torch.arange(places, device=values.device)
        index = index.reshape(*index.shape, *(1,) * (values.dim() - 2)).expand(-1, -1, *values.shape[2:])
        return extended.gather(1, index)


def linear_recurrence(keep: Tensor, added: Tensor, before: Tensor | None) -> Tensor:
    """h_t = keep_t h_{t-1} + added_t for all t at once; differentiable.

    After round k a place holds what the last 2^k places left in it: log2(length) rounds reach back to the start.

    Args:
        keep: (batch, length, ...), what stays of the state before.
        added: of the same shape.
        before: (batch, ...), the state before the first place; None for zeros.

    Returns:
        (batch, length, ...), the state after every place.
    """
    if before is None:
        before = torch.zeros_like(added[:, 0])
    memory = torch.cat((before.unsqueeze(1), added), dim=1)
    keep = torch.cat((torch.zeros_like(keep[:, :1]), keep), dim=1)
    shift = 1
    while shift < memory.shape[1]:
        earlier = torch.cat((torch.zeros_like(memory[:, :shift]), memory[:, :-shift]), dim=1)
        memory = memory + keep * earlier
        keep = keep * torch.cat((torch.zeros_like(keep[:, :shift]), keep[:, :-shift]), dim=1)
        shift *= 2
    return memory[:, 1:]
