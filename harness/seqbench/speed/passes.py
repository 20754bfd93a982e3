"""What is timed of a model: a training pass, a prefill, and single tokens at a position."""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqbench.errors import RequestError
from seqbench.nn import state_argument, state_of

MODES = ("train", "prefill", "decode")

# Tokens of one timed call of "decode": long enough that the clock and its synchronisation cost nothing beside it.
DECODE_STEPS = 16

Autocast = Callable[[], Any]


class TrainingPass:
    """Loss and gradients of a batch of whole sequences; no optimizer, and gradients begin as None."""

    def __init__(self, call: Callable[..., Any], model: nn.Module, input_ids: Tensor, autocast: Autocast) -> None:
        """`call` is `model`, or what was compiled of it; input_ids (batch, length) int64 on the device."""
        self._call, self._model, self._autocast = call, model, autocast
        self._input_ids, self._labels = input_ids, input_ids.roll(-1, dims=1).flatten()
        self.units = input_ids.numel()

    def prepare(self) -> None:
        """Training mode, no gradients."""
        self._model.train()
        self._model.zero_grad(set_to_none=True)

    def call(self) -> None:
        """Forward, mean cross-entropy over all positions in fp32, backward."""
        self.forward().backward()

    def clear(self) -> None:
        """Let go of the gradients."""
        self._model.zero_grad(set_to_none=True)

    def forward(self) -> Tensor:
        """The loss."""
        with self._autocast():
            logits = self._call(self._input_ids).logits
            return F.cross_entropy(logits.float().flatten(0, 1), self._labels)


class PrefillPass:
    """A forward pass over whole sequences without gradients, after which the carried state is there."""

    def __init__(self, call: Callable[..., Any], model: nn.Module, input_ids: Tensor, autocast: Autocast) -> None:
        """As `TrainingPass`."""
        self._call, self._model, self._autocast, self._input_ids = call, model, autocast, input_ids
        self._output: Any = None
        self.units = input_ids.numel()

    def prepare(self) -> None:
        """Evaluation mode."""
        self._model.eval()

    def call(self) -> None:
        """Logits of all positions, and the state."""
        with torch.no_grad(), self._autocast():
            self._output = self._call(self._input_ids, use_cache=True)
        if state_of(self._output) is None:
            raise RequestError("the model returned no state with use_cache=True")

    def clear(self) -> None:
        """Let go of logits and state."""
        self._output = None


class DecodePass:
    """Tokens one at a time behind a state; every call begins with a copy of that state, at the same position."""

    def __init__(
        self, call: Callable[..., Any], model: nn.Module, input_ids: Tensor, state: Any, autocast: Autocast
    ) -> None:
        """input_ids (batch, 1 + DECODE_STEPS): the first is fed before the clock starts; `state` is kept as it is."""
        self._call, self._model, self._autocast = call, model, autocast
        # Cut up beforehand: slicing is no part of a step.
        self._first, *self._tokens = input_ids.split(1, dim=1)
        self._state, self._moving = state, None
        self._argument = state_argument(model)
        self.units = input_ids.shape[0] * len(self._tokens)

    def prepare(self) -> None:
        """A copy of the state, and one step that is not timed."""
        self._model.eval()
        self._moving = copy.deepcopy(self._state)
        with torch.no_grad(), self._autocast():
            self._step(self._first)

    def call(self) -> None:
        """All steps; which token comes next does not hang on the logits, which are made and left."""
        with torch.no_grad(), self._autocast():
            for token in self._tokens:
                self._step(token)

    def clear(self) -> None:
        """Let go of the copy."""
        self._moving = None

    def _step(self, token: Tensor) -> None:
        self._moving = state_of(self._call(token, use_cache=True, **{self._argument: self._moving}))
