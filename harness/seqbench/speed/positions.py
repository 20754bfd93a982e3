"""The carried state of a model at a position, reached by prefill in chunks."""

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from seqbench.evaluating.streaming import DEFAULT_CHUNK_LENGTH, stream
from seqbench.speed.failures import NotRun


class Positions:
    """States of one model at one position after another; each goes on from the one before.

    Args:
        model: on its device.
        make_ids: number of tokens -> (batch, number) int64 ids.
        work: tokens -> what the time to read as many is in proportion to.
        limit: seconds that reaching a position may take.
        autocast: what a step runs under.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        make_ids: Callable[[int], Tensor],
        work: Callable[[int], float],
        limit: float,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._model, self._make_ids, self._work = model, make_ids, work
        self._limit, self._autocast = limit, autocast
        self._reached, self._state = 0, None

    def at(self, position: int) -> Any:
        """A copy of the state after `position` tokens, at least as many as were asked for last.

        Raises NotRun as soon as the rest is expected to end after the limit.
        """
        started, begun = time.monotonic(), self._reached
        chunk = DEFAULT_CHUNK_LENGTH
        while self._reached < position:
            length = min(chunk, position - self._reached)
            with self._autocast():
                for step in stream(self._model, self._make_ids(length), chunk_length=chunk, state=self._state):
                    self._state = step.state
                    del step
            self._reached += length
            self._expect(position, begun, time.monotonic() - started)
        return copy.deepcopy(self._state)

    def _expect(self, position: int, begun: int, elapsed: float) -> None:
        done, whole = self._work(self._reached) - self._work(begun), self._work(position) - self._work(begun)
        if done <= 0:
            done, whole = self._reached - begun, position - begun
        expected = elapsed * whole / done
        if self._reached < position and expected > self._limit:
            raise NotRun(
                f"reaching position {position:,} by prefill would take about {expected:,.0f} s, more than"
                f" --time-limit {self._limit:g}"
            )


def tensor_bytes(state: Any) -> int:
    """Bytes of all tensors in a state, each storage once: what is there, whatever was declared."""
    seen: dict[int, int] = {}
    _collect(state, seen, set())
    return sum(seen.values())


def _collect(value: Any, seen: dict[int, int], visited: set[int]) -> None:
    if id(value) in visited:
        return
    visited.add(id(value))
    if isinstance(value, torch.Tensor):
        storage = value.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
    elif isinstance(value, dict):
        for entry in value.values():
            _collect(entry, seen, visited)
    elif isinstance(value, list | tuple | set):
        for entry in value:
            _collect(entry, seen, visited)
    elif hasattr(value, "__dict__"):
        _collect(vars(value), seen, visited)
