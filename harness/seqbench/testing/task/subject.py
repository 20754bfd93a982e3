"""The task under examination, and a predictor that writes down what it is asked."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from seqbench.contracts import Batch, Evaluation, TaskPlugin
from seqbench.testing.report import ClauseFailure

# Sequences per batch that are tried; enough for two batches to coincide by design only.
ROWS = 8


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
    """

    exemptions: Mapping[str, str] = {}

    def __init__(self, task_class: type[TaskPlugin[Any]], preset: str) -> None:
        self.task_class, self.preset = task_class, preset

    def fresh(self) -> TaskPlugin[Any]:
        """A new instance."""
        return self.task_class(self.task_class.presets[self.preset].config)

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
    for tensor in (batch.input_ids, batch.labels, batch.attention_mask):
        content = None if tensor is None else (str(tensor.dtype), tensor.tolist())
        digest.update(json.dumps(content).encode())
    return digest.hexdigest()
