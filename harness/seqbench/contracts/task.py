"""The contract of a task plugin: data as a pure function, and an evaluation."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from seqbench.contracts.measurement import Evaluation

TaskConfig = TypeVar("TaskConfig")

# Positions with this label carry no loss; the value that torch.nn.functional.cross_entropy ignores by default.
IGNORED_LABEL = -100


@dataclass(frozen=True)
class Batch:
    """Sequences with what is to be predicted at each position.

    Attributes:
        input_ids: (batch, length) int64.
        labels: (batch, length) int64, aligned with the predicting position: labels[b, t] is the token that
            logits[b, t] should name, or IGNORED_LABEL, which also stands at padding. A batch has a label to learn.
        attention_mask: (batch, length) int64, 1 for real tokens and 0 for padding; None when nothing is padded.
    """

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor | None = None

    @property
    def tokens(self) -> int:
        """Number of tokens that are not padding."""
        return self.input_ids.numel() if self.attention_mask is None else int(self.attention_mask.sum())

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each sequence, padding not counted."""
        if self.attention_mask is None:
            return [self.input_ids.shape[1]] * self.input_ids.shape[0]
        return self.attention_mask.sum(dim=1).tolist()

    def rows(self, start: int, stop: int) -> "Batch":
        """The sequences start..stop-1 as a batch of their own."""
        mask = None if self.attention_mask is None else self.attention_mask[start:stop]
        return Batch(self.input_ids[start:stop], self.labels[start:stop], mask)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        mask = None if self.attention_mask is None else self.attention_mask.to(device)
        return Batch(self.input_ids.to(device), self.labels.to(device), mask)


class Predictor(Protocol):
    """A trained model as a task's evaluation sees it: evaluation mode, no gradients, the run's device and precision."""

    @property
    def attention_reach(self) -> int | None:
        """The largest distance the model's attention can bridge; None for full attention or recurrence."""

    def logits(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """fp32 logits (batch, length, vocabulary) on the CPU for one chunk of fresh sequences."""


@dataclass(frozen=True)
class TaskPreset(Generic[TaskConfig]):
    """A named task config, and the trainer settings that go with it, the same for every model.

    Attributes:
        config: the task's settings.
        trainer: trainer field -> value, where the preset departs from the trainer's own defaults.
        summary: what the preset is for, in one line.
    """

    config: TaskConfig
    summary: str
    trainer: Mapping[str, Any] = field(default_factory=dict)


class TaskPlugin(ABC, Generic[TaskConfig]):
    """A task, bound to one config.

    Generation is a pure function of (config, split, seed, index): the same arguments give the same bytes on any
    machine, in any order, so that every model of a comparison sees the same stream and a resumed run continues it. It
    neither uses nor moves a global generator of random numbers. The sets of validation and test depend on the config
    alone, and are no part of the training stream. `bench check` tries all of this.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    # Raise it whenever the same config and seed would give other data or other scores: part of a run's identity.
    version: ClassVar[str]
    config_class: ClassVar[type]
    presets: ClassVar[Mapping[str, TaskPreset[Any]]]
    default_preset: ClassVar[str] = "tiny"
    primary_metric: ClassVar[str]
    higher_is_better: ClassVar[bool]
    # The coordinate that tables and plots lay out the primary metric over.
    primary_coordinate: ClassVar[str]

    def __init__(self, config: TaskConfig) -> None:
        self.config = config

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of token ids, special ones included."""

    @property
    @abstractmethod
    def longest_sequence(self) -> int:
        """The longest training sequence in tokens; estimates of FLOPs, memory and time use it."""

    @property
    @abstractmethod
    def tokens_per_evaluation_call(self) -> int:
        """The most tokens that one call of `evaluate` hands to the predictor at once; the memory estimate uses it."""

    @abstractmethod
    def training_batch(self, seed: int, index: int, batch_size: int) -> Batch:
        """The index-th batch of the endless training stream of this seed."""

    @abstractmethod
    def evaluate(self, predictor: Predictor, split: str) -> Evaluation:
        """Measure `predictor` on the fixed "validation" or "test" set.

        The same predictions give the same evaluation. Both splits report the primary metric, as a finite number, with
        the primary coordinate among its coordinates.
        """

    def item_score(self, item: Mapping[str, Any]) -> tuple[float, float]:
        """Score and weight of one record of `Evaluation.items`, so that models can be compared item by item.

        The mean of the scores, weighted, must be the primary metric over the whole set. By default an item's field of
        that name, every item alike.
        """
        return item[self.primary_metric], 1.0

    def report_notes(self, attention_reach: int | None) -> list[str]:
        """Lines to print under a result of a model with that reach; none by default."""
        del attention_reach
        return []
