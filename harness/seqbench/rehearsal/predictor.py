"""A predictor for rehearsals: the model answers for a while, then zeros of the same shape stand in for it."""

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqbench.contracts import Batch, PredictedChunk
from seqbench.errors import RequestError
from seqbench.evaluating.predictor import ModelPredictor
from seqbench.evaluating.streaming import in_chunks


class RehearsalPredictor(ModelPredictor):
    """Answers like `ModelPredictor` as long as `seconds` last, and remembers its shortest and its longest call.

    A call that would take longer than what is left is answered with zeros: what an evaluation does with logits is tried
    at little cost. The first call is always the model's. Of a stream the model reads the first chunk alone, in two
    steps. Nothing is recorded.

    A sequence that is longer than `longest`, where that is a number, is a RequestError.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.seconds, self.longest = 1.0, cast(int | None, None)
        self._seconds_per_token = 0.0
        # Columns of the model's logits, once it has been asked.
        self._width: int | None = None
        self._calls: dict[int, tuple[Tensor, Tensor | None]] = {}

    @property
    def batches(self) -> list[Batch]:
        """Two rows of the shortest call and of the longest one, without labels."""
        return [Batch(ids, ids, mask) for ids, mask in self._calls.values()]

    def logits(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """fp32 logits (batch, length, vocabulary) on the CPU."""
        self._remember(input_ids, attention_mask)
        self._require_length(input_ids.shape[1])
        return self._ask(input_ids, lambda: ModelPredictor.logits(self, input_ids, attention_mask))

    def stream(
        self, input_ids: Tensor | Iterable[Tensor | np.ndarray[Any, Any]], chunk_length: int
    ) -> Iterator[PredictedChunk]:
        """Logits chunk by chunk; errors as `ModelPredictor.stream`."""
        start = 0
        for chunk in in_chunks(input_ids, chunk_length):
            if start == 0:
                self._remember(chunk, None)
                logits = self._ask(chunk, functools.partial(self._in_two_steps, chunk))
            else:
                logits = self._zeros(chunk)
            yield PredictedChunk(start, chunk, logits)
            start += chunk.shape[1]
            self._require_length(start)
        if start == 0:
            # It says what is wrong with a sequence of nothing.
            yield from super().stream([], chunk_length)

    def generate(self, input_ids: Tensor, attention_mask: Tensor, **options: Any) -> Tensor:
        """Prompts and one token behind them, or as many as asked for that are zeros."""
        self._remember(input_ids, attention_mask)
        self._require_length(input_ids.shape[1] + int(options.get("max_new_tokens", 1)))
        super().generate(input_ids[:1], attention_mask[:1], **{**options, "max_new_tokens": 1})
        return F.pad(input_ids, (0, int(options.get("max_new_tokens", 1))))

    def record(self, key: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What `compute` returns."""
        del key
        return dict(compute())

    def _in_two_steps(self, chunk: Tensor) -> Tensor:
        steps = super().stream(chunk, max(1, -(-chunk.shape[1] // 2)))
        return torch.cat([step.logits for step in steps], dim=1)

    def _ask(self, input_ids: Tensor, answer: Callable[[], Tensor]) -> Tensor:
        if self._width is not None and input_ids.numel() * self._seconds_per_token > self.seconds:
            return self._zeros(input_ids)
        started = time.perf_counter()
        logits = answer()
        taken = time.perf_counter() - started
        self._width = logits.shape[-1]
        self._seconds_per_token = taken / max(1, input_ids.numel())
        self.seconds -= taken
        return logits

    def _require_length(self, length: int) -> None:
        if self.longest is not None and length > self.longest:
            raise RequestError(
                f"the model takes sequences of at most {self.longest:,} tokens, and one of the test set has {length:,};"
                " change that setting of the model (bench show MODEL), or choose shorter test lengths"
            )

    def _zeros(self, input_ids: Tensor) -> Tensor:
        assert self._width is not None
        return torch.zeros(*input_ids.shape, self._width)

    def _remember(self, input_ids: Tensor, attention_mask: Tensor | None) -> None:
        length = input_ids.shape[1]
        self._calls[length] = input_ids[:2].cpu(), None if attention_mask is None else attention_mask[:2].cpu()
        self._calls = {kept: self._calls[kept] for kept in (min(self._calls), max(self._calls))}
