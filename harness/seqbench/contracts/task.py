"""The contract of a task plugin: data as a pure function, and an evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from seqbench.contracts.measurement import Contamination, Evaluation, PublishedScore

# They take seconds to import, and what is only listed needs none of them.
if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

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
        raw: the text that the tokens were made from, for tasks that use the model's own tokenizer: models that read the
            same text in different tokens saw the same data. None: the tokens are the data.
    """

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor | None = None
    raw: bytes | None = None

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

    def rows(self, start: int, stop: int) -> Batch:
        """The sequences start..stop-1 as a batch of their own."""
        mask = None if self.attention_mask is None else self.attention_mask[start:stop]
        return Batch(self.input_ids[start:stop], self.labels[start:stop], mask)

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        mask = None if self.attention_mask is None else self.attention_mask.to(device)
        return Batch(self.input_ids.to(device), self.labels.to(device), mask)


class Predictor(Protocol):
    """A trained model as a task's evaluation sees it: evaluation mode, no gradients, the run's device and precision."""

    @property
    def attention_reach(self) -> int | None:
        """The largest distance the model's attention can bridge; None for full attention or recurrence."""

    @property
    def model(self) -> PreTrainedModel:
        """The model itself, on the run's device, for evaluations by other libraries. Not to be changed."""

    @property
    def carries_state(self) -> bool:
        """Whether the model returns a state that continues a sequence. Found out with a call of two tokens."""

    def logits(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """fp32 logits (batch, length, vocabulary) on the CPU for one chunk of fresh sequences."""

    def stream(
        self, input_ids: Tensor | Iterable[Tensor | np.ndarray[Any, Any]], chunk_length: int
    ) -> Iterator[PredictedChunk]:
        """Logits of a sequence of any length, chunk by chunk in bounded memory, with the state carried on.

        Args:
            input_ids: (batch, length) of integers, or an iterable of such parts.
            chunk_length: tokens a step.

        Raises RequestError when the model has no state to carry.
        """

    def generate(self, input_ids: Tensor, attention_mask: Tensor, **options: Any) -> Tensor:
        """Prompts and what `generate` of transformers writes behind them, (batch, length) int64 on the CPU.

        Args:
            input_ids: (batch, length) int64, prompts padded on the left.
            attention_mask: (batch, length), zero at padding.
            **options: of `generate`.

        Raises RunFailure("no-generation") for a model that has no `generate`.
        """

    def state_bytes(self, length: int) -> int:
        """Bytes of carried state that one sequence holds after `length` tokens, as the plugin declares."""

    def record(self, key: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What `compute` returns, plain JSON data; computed at most once for a run.

        An evaluation of many parts (books, suites) that is interrupted goes on behind the records that it has. Keys
        are names of the evaluation's own choice, one for each part.
        """

    def progress(self, done: float, total: float, what: str) -> None:
        """Tell the user how far a long evaluation is: `done` of `total`, in the unit and words of `what`."""


@dataclass(frozen=True)
class PredictedChunk:
    """What one step of `Predictor.stream` yields.

    Attributes:
        start: tokens of the sequence before the chunk.
        input_ids: (batch, length) int64 on the CPU.
        logits: (batch, length, vocabulary) fp32 on the CPU; logits[:, t] predict the token after input_ids[:, t].
    """

    start: int
    input_ids: Tensor
    logits: Tensor


@dataclass(frozen=True)
class TaskPreset(Generic[TaskConfig]):
    """A named task config, and the trainer settings that go with it, the same for every model.

    Attributes:
        config: the task's settings.
        trainer: trainer field -> value, where the preset departs from the trainer's own defaults.
        summary: what the preset is for, in one line.
        figure: the published figure or table that it corresponds to; empty for one of our own.
    """

    config: TaskConfig
    summary: str
    trainer: Mapping[str, Any] = field(default_factory=dict)
    figure: str = ""


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
    # False for a task that only measures: its runs train no steps, and `training_batch` is never called.
    trains: ClassVar[bool] = True
    # Clause of `bench check` -> why this task cannot fulfil it.
    exemptions: ClassVar[Mapping[str, str]] = {}
    # Options of the command line for fields of the config, such as {"data": "data"} for `--data PATH`. An option name
    # of the commands themselves cannot be taken.
    options: ClassVar[Mapping[str, str]] = {}
    # Fields of the config that say where data lies, or how to read it, and not what it is. They are no part of a run's
    # identity: `data_identity` is.
    location_fields: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: TaskConfig) -> None:
        self.config = config
        self.tokenizer: PreTrainedTokenizerBase | None = None

    def with_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> TaskPlugin[TaskConfig]:
        """The same task for a model that has a tokenizer of its own; tasks that read no text ignore it.

        Called once, before anything else. What is measured must be comparable between tokenizers, such as bits per
        byte.
        """
        del tokenizer
        return self

    def prepare(self) -> None:
        """Find the data that the config names, before anything is planned with it.

        Raises RequestError when there is none, or it cannot be read. Tasks that generate their data need none.
        """

    def data_identity(self) -> Mapping[str, Any]:
        """What decides the data besides the config, such as hashes of files, as plain JSON data; part of a run's
        identity. Called after `prepare`.
        """
        return {}

    def published(self) -> Sequence[PublishedScore]:
        """Scores that papers report for this config, shown beside ours; none by default."""
        return ()

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of token ids, special ones included."""

    @property
    @abstractmethod
    def longest_sequence(self) -> int:
        """The longest training sequence in tokens; estimates of FLOPs, memory and time use it.

        A bound: no sequence is longer.
        """

    @property
    def estimated_sequence(self) -> int:
        """Tokens of a long training sequence, for those estimates: `longest_sequence`, as it stands.

        A task whose sequences never come near the bound gives the length of one that it has seen.
        """
        return self.longest_sequence

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

    def contamination(self, seed: int, batches: int, batch_size: int) -> Sequence[Contamination]:
        """What of the validation and the test set stood in the first `batches` training batches of `seed`.

        For each split all of it first, and then the parts that hold something. Called once, after training. Nothing
        where it is not counted, as it stands; then no test item may repeat or be found in training (`bench check`).
        """
        del seed, batches, batch_size
        return ()

    def rehearsal(self) -> TaskPlugin[TaskConfig]:
        """The same task with evaluation sets as small as they can be, on which all that follows training is tried
        before it: the first items, or one of each kind.

        Raises RequestError for what would make the evaluation of this task fail: such as a set that is empty. As it
        stands the task itself, whose evaluation a rehearsal then goes through with stand-ins for most predictions.
        """
        return self

    def item_score(self, item: Mapping[str, Any]) -> tuple[float, float]:
        """Score and weight of one record of `Evaluation.items`, so that models can be compared item by item.

        The mean of the scores, weighted, must be the primary metric over the whole set. By default an item's field of
        that name, every item alike.
        """
        return item[self.primary_metric], 1.0

    def item_curve(self, item: Mapping[str, Any]) -> Sequence[tuple[float, float, float]]:
        """The score of one record along the primary coordinate: (place, score, weight), where a score is of what lies
        between the place before and this one.

        The mean of the scores, weighted, must be the `item_score`. Comparisons show how the difference between two
        models adds up over the places. Nothing, as it stands.
        """
        del item
        return ()

    def report_notes(self, attention_reach: int | None) -> list[str]:
        """Lines to print under a result of a model with that reach; none by default."""
        del attention_reach
        return []
