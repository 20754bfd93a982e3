"""The task under examination, and a predictor that writes down what it is asked."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from seqbench.contracts import Batch, Evaluation, PredictedChunk, TaskPlugin, with_settings
from seqbench.evaluating.streaming import in_chunks
from seqbench.planning.task_data import make_task
from seqbench.testing.report import ClauseFailure

# Sequences per batch that are tried; enough for two batches to coincide by design only.
ROWS = 8

# Clauses about training data.
_OF_TRAINING = ("batches", "reproducible", "distinct", "splits-apart", "held-out")


@dataclass
class RecordingPredictor:
    """Predicts from the present token alone, the same for the same `seed`; keeps what it is called with.

    Attributes:
        vocab_size: columns of the logits.
        seed: of the prediction.
        calls: (input_ids, attention_mask) of every call.
    """

    vocab_size: int
    seed: int = 0
    attention_reach: int | None = None
    calls: list[tuple[Tensor, Tensor | None]] = field(default_factory=list)

    @property
    def model(self) -> PreTrainedModel:
        """There is none behind these predictions."""
        raise NotImplementedError("a check predicts without a model")

    @property
    def carries_state(self) -> bool:
        """True: a prediction from the present token alone continues any sequence."""
        return True

    def stream(
        self, input_ids: Tensor | Iterable[Tensor | np.ndarray[Any, Any]], chunk_length: int
    ) -> Iterator[PredictedChunk]:
        """The same predictions, chunk by chunk."""
        start = 0
        for chunk in in_chunks(input_ids, chunk_length):
            yield PredictedChunk(start, chunk, self.logits(chunk))
            start += chunk.shape[1]

    def generate(self, input_ids: Tensor, attention_mask: Tensor, **options: Any) -> Tensor:
        """There is no model that could."""
        raise NotImplementedError("a check predicts without a model")

    def state_bytes(self, length: int) -> int:
        """Nothing is remembered."""
        del length
        return 0

    def record(self, key: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What `compute` returns, as JSON gives it back."""
        del key
        return json.loads(json.dumps(dict(compute())))

    def progress(self, done: float, total: float, what: str) -> None:
        """Nobody is told."""

    def logits(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(batch, length, vocab_size) of a fixed random map of rank 8, whatever the vocabulary's size."""
        self.calls.append((input_ids.clone(), None if attention_mask is None else attention_mask.clone()))
        outside = (input_ids < 0) | (input_ids >= self.vocab_size)
        if outside.any():
            raise ClauseFailure(
                f"evaluate() hands token {int(input_ids[outside][0])} to the predictor, outside the vocabulary of"
                f" {self.vocab_size:,}"
            )
        generator = torch.Generator().manual_seed(self.seed)
        rows, columns = torch.randn(2, self.vocab_size, 8, generator=generator)
        return rows[input_ids] @ columns.T


class TaskSubject:
    """A task's preset.

    Args:
        task_class: under examination.
        preset: name of the preset.
        changes: field -> text, where its config is to be another one.
    """

    def __init__(
        self, task_class: type[TaskPlugin[Any]], preset: str, changes: Mapping[str, str] | None = None
    ) -> None:
        self.task_class, self.preset, self.changes = task_class, preset, dict(changes or {})
        self._config = with_settings(task_class.presets[preset].config, self.changes, f"task {task_class.name}")

    @property
    def plugin_class(self) -> type:
        """Of the task."""
        return self.task_class

    @property
    def exemptions(self) -> Mapping[str, str]:
        """What the task declares, and what follows from training nothing."""
        only_measures = {} if self.task_class.trains else dict.fromkeys(_OF_TRAINING, "the task trains nothing")
        return only_measures | dict(self.task_class.exemptions)

    def fresh(self) -> TaskPlugin[Any]:
        """A new instance."""
        return make_task(self.task_class, self._config)

    def evaluate(self, split: str, seed: int = 0) -> tuple[Evaluation, RecordingPredictor]:
        """A fresh instance's evaluation, and the predictor that it asked."""
        task = self.fresh()
        predictor = RecordingPredictor(task.vocab_size, seed)
        return task.evaluate(predictor, split), predictor

    @cached_property
    def evaluations(self) -> dict[str, tuple[Evaluation, RecordingPredictor]]:
        """One evaluation of each split."""
        return {split: self.evaluate(split) for split in ("validation", "test")}


def digest_of_batch(batch: Batch) -> str:
    """A digest of everything in a batch."""
    digest = hashlib.sha256()
    digest.update(batch.raw or b"")
    for tensor in (batch.input_ids, batch.labels, batch.attention_mask):
        content = None if tensor is None else (str(tensor.dtype), tensor.tolist())
        digest.update(json.dumps(content).encode())
    return digest.hexdigest()
