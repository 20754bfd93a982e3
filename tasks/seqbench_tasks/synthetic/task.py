"""The base class of generated tasks: everything that follows from one function that makes samples."""

import copy
import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from seqbench.contracts import LOOKBACK, Batch, Contamination, Evaluation, Measurement, Predictor, TaskPlugin
from seqbench_tasks.streams import SymbolStream, below
from seqbench_tasks.synthetic.config import EvaluationSizes
from seqbench_tasks.synthetic.draws import CountedDraws, Draws, Ids
from seqbench_tasks.synthetic.held_out import EvaluationSets
from seqbench_tasks.synthetic.notes import bits_note, chance_note, reach_note, sets_notes
from seqbench_tasks.synthetic.samples import Difficulty, Samples, padded_batch
from seqbench_tasks.synthetic.score import Names, measure, score

Config = TypeVar("Config", bound=EvaluationSizes)
Rung = TypeVar("Rung", bound=Difficulty)

# Tokens of one forward call, at most, unless a single sequence is longer: evaluation runs in bounded memory.
TOKENS_PER_CALL = 16_384
# Draws of one training row after which there is taken to be none that training may see.
_ROW_ATTEMPTS = 1000


@dataclass(frozen=True)
class _Size:
    """What one sample takes: random numbers, and tokens."""

    numbers: int
    tokens: int


class SyntheticTask(TaskPlugin[Config], Generic[Config, Rung]):
    """A task whose data is generated; the package's docstring says how to write one."""

    primary_metric = "accuracy"
    higher_is_better = True
    # What the figures are called in items and measurements; `names.accuracy` is the primary metric by default.
    names: ClassVar[Names] = Names()

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._sizes: dict[Rung, _Size] = {}
        self._rehearses = False

    # What a task has to say.

    @abstractmethod
    def training_mixture(self) -> Mapping[Rung, int]:
        """The difficulties of training, each with its weight, a whole number."""

    @abstractmethod
    def test_set(self) -> Mapping[Rung, int]:
        """The difficulties of the test set, each with its number of samples."""

    @abstractmethod
    def samples(self, difficulty: Rung, draws: Draws) -> Samples:
        """`draws.count` samples of one difficulty, all of the same length."""

    @abstractmethod
    def chance(self, difficulty: Rung) -> float:
        """Expected accuracy of answers that are drawn at random from the ids that can be answers there."""

    # What a task may say besides.

    def validation_set(self) -> Mapping[Rung, int]:
        """The difficulties of the validation set, each with its number of samples: by default those of training."""
        return dict.fromkeys(self.training_mixture(), self.config.validation_samples)

    @property
    def mixes_rows(self) -> bool:
        """Whether every training sequence has its own difficulty; otherwise all of a batch have the same."""
        return False

    @property
    def padding(self) -> int:
        """The id at masked positions of mixed batches."""
        return 0

    def training_mixture_at(self, batch_index: int) -> Mapping[Rung, int]:
        """The mixture that one training batch is drawn from, for a curriculum: a function of the index alone."""
        del batch_index
        return self.training_mixture()

    def lookback(self, difficulty: Rung) -> int | None:
        """Tokens between a prediction and what it depends on, where that is one number; None elsewhere.

        Where it is given, measurements have it and the model's reach among their coordinates.
        """
        del difficulty
        return None

    def memory_bits(self, difficulty: Rung) -> float | None:
        """Bits of state that any model needs at some point of a sample to answer everything; None if not known.

        The logarithm of the number of beginnings that can go on alike and then want different answers.
        """
        del difficulty
        return None

    def sample_bits(self, difficulty: Rung) -> float | None:
        """-log2 of the probability of the likeliest inputs of a sample, or less; None if not known.

        It is what tells that no sample can come twice. Where it is not known, or small, samples are compared.
        """
        del difficulty
        return None

    @property
    def first_token(self) -> int | None:
        """The id that each sample begins with, where training sequences hold several; None where they hold one."""
        return None

    def sequence_length(self, difficulty: Rung) -> int:
        """Tokens of a sequence; found out with one sample, unless a task with very long ones says it at once."""
        return self._size(difficulty).tokens

    def notes(self) -> list[str]:
        """Lines of the task's own under a result."""
        return []

    def score(self, predictor: Predictor, samples: Samples) -> list[dict[str, Any]]:
        """One record per sample, as `seqbench_tasks.synthetic.score` makes them from the logits of one forward call.

        To be replaced by a task that reads its samples in another way; autograd is off.
        """
        return score(predictor.logits(torch.from_numpy(samples.input_ids)), samples, self.names)

    def evaluation_stream(self, difficulty: Rung) -> int:
        """A number that seeds the evaluation samples of one difficulty, apart from those of others."""
        text = json.dumps(difficulty.coordinates, sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")

    # What follows.

    @property
    def longest_sequence(self) -> int:
        """Tokens of the longest training sequence."""
        return max(map(self.sequence_length, self.training_mixture()))

    @property
    def tokens_per_evaluation_call(self) -> int:
        """Tokens of the largest forward call of an evaluation, all of its sequences together."""
        return max(
            min(self._samples_per_call(difficulty), count) * self.sequence_length(difficulty)
            for rungs in (self.validation_set(), self.test_set())
            for difficulty, count in rungs.items()
        )

    def training_batch(self, seed: int, index: int, batch_size: int) -> Batch:
        """Batch `index` of the training stream of `seed`; its first k rows are the same for every batch_size >= k.

        Rows that hold a sample of the evaluation sets are drawn again, of the same difficulty. Raises RequestError when
        seed or index is outside 0 .. 2**64 - 1.
        """
        batch, difficulties = self._drawn_batch(seed, index, batch_size)
        rows = self.evaluation_sets.rows_held_out(batch.input_ids.numpy(), batch.lengths)
        if not rows.size:
            return batch
        input_ids, labels = batch.input_ids.clone(), batch.labels.clone()
        for row in rows.tolist():
            other = self._replacement(difficulties[row], SymbolStream("replacement", seed, index, row))
            length = other.input_ids.shape[1]
            input_ids[row, :length] = torch.from_numpy(other.input_ids[0])
            labels[row, :length] = torch.from_numpy(other.labels[0])
        return Batch(input_ids, labels, batch.attention_mask)

    def evaluation_samples(self, split: str, difficulty: Rung, start: int, stop: int) -> Samples:
        """Samples start..stop-1 of one difficulty of "validation" or "test"; no seed of a run enters."""
        return self.samples_at(split, difficulty, self.evaluation_sets.places(split, difficulty, start, stop))

    @cached_property
    def evaluation_sets(self) -> EvaluationSets[Rung]:
        """The samples of validation and test: without repeats, and what training leaves out."""
        return EvaluationSets(self)

    def samples_at(self, split: str, difficulty: Rung, places: Ids) -> Samples:
        """The evaluation samples that are drawn at these places: (samples, 2), index and number of draws before."""
        width, first = self._size(difficulty).numbers, self.evaluation_stream(difficulty)
        numbers = [
            SymbolStream(split, first, index).draw((attempt + 1) * width)[attempt * width :]
            for index, attempt in places.tolist()
        ]
        return self._samples(difficulty, np.stack(numbers))

    def probe(self, difficulty: Rung, count: int) -> Samples:
        """Samples of no split."""
        width, stream = self._size(difficulty).numbers, SymbolStream("probe", self.evaluation_stream(difficulty))
        return self._samples(difficulty, stream.draw(count * width).reshape(count, width))

    def contamination(self, seed: int, batches: int, batch_size: int) -> Sequence[Contamination]:
        """What of both sets the batches hold; the stream is gone through again where something may be."""

        def rows(index: int) -> tuple[Ids, Sequence[int]]:
            batch = self.training_batch(seed, index, batch_size)
            return batch.input_ids.numpy(), batch.lengths

        return self.evaluation_sets.contamination(rows, batches)

    @torch.no_grad()
    def evaluate(self, predictor: Predictor, split: str) -> Evaluation:
        """Accuracy, exact match, loss and the task's other metrics, for every difficulty and then over all samples.

        Raises ValueError when split is neither "validation" nor "test".
        """
        measurements: list[Measurement] = []
        items: list[dict[str, Any]] = []
        answers: dict[str, None] = {}
        for difficulty, count in self._evaluation_set(split).items():
            places = {**difficulty.coordinates, **self._lookback(difficulty)}
            records: list[dict[str, Any]] = []
            for samples in self._calls(split, difficulty, count):
                answers |= dict.fromkeys(samples.answers)
                scored = self.score(predictor, samples)
                first = len(items) + len(records)
                records += [{"index": index, **places, **record} for index, record in enumerate(scored, start=first)]
            reach = {"reach": predictor.attention_reach} if LOOKBACK in places else {}
            measurements += measure(records, split, {**places, **reach}, self.names, list(answers))
            items += records
        measurements += measure(items, split, {}, self.names, list(answers))
        return Evaluation(tuple(measurements), tuple(items))

    def rehearsal(self) -> Self:
        """The same task with one sample of each difficulty."""
        # The sets are made before, so that both have them.
        self.evaluation_sets  # noqa: B018
        task = copy.copy(self)
        task._rehearses = True
        return task

    def item_score(self, item: Mapping[str, Any]) -> tuple[float, float]:
        """Accuracy of one sample, weighted by its labels. To be replaced along with another primary metric."""
        return item[self.names.correct] / item[self.names.total], item[self.names.total]

    def report_notes(self, attention_reach: int | None) -> list[str]:
        """What to set the scores beside: chance, bits to remember, what attention can bridge, and the task's own."""
        test = list(self.test_set())
        lookbacks = [lookback for lookback in map(self.lookback, test) if lookback is not None]
        return [
            chance_note({difficulty: self.chance(difficulty) for difficulty in test}),
            *bits_note({difficulty: self.memory_bits(difficulty) for difficulty in test}),
            *reach_note(lookbacks, attention_reach),
            *sets_notes(self.evaluation_sets),
            *self.notes(),
        ]

    def _evaluation_set(self, split: str) -> Mapping[Rung, int]:
        if split not in ("validation", "test"):
            raise ValueError(f"split must be 'validation' or 'test', not {split!r}")
        rungs = self.evaluation_sets.of(split)
        return dict.fromkeys(rungs, 1) if self._rehearses else rungs

    def _lookback(self, difficulty: Rung) -> dict[str, int]:
        lookback = self.lookback(difficulty)
        return {} if lookback is None else {LOOKBACK: lookback}

    def _samples_per_call(self, difficulty: Rung) -> int:
        return max(1, TOKENS_PER_CALL // self.sequence_length(difficulty))

    def _calls(self, split: str, difficulty: Rung, count: int) -> Iterator[Samples]:
        """The samples of one difficulty, in parts for one forward call each."""
        step = self._samples_per_call(difficulty)
        for start in range(0, count, step):
            yield self.evaluation_samples(split, difficulty, start, min(start + step, count))

    def _drawn_batch(self, seed: int, index: int, batch_size: int) -> tuple[Batch, Sequence[Rung]]:
        """The batch as it is drawn, and the difficulty of each row."""
        stream, mixture = SymbolStream("training", seed, index), self.training_mixture_at(index)
        if self.mixes_rows:
            # Rows take equal shares of the stream, so that a row does not depend on the difficulties before it.
            width = 1 + max(self._size(difficulty).numbers for difficulty in mixture)
            numbers = stream.draw(batch_size * width).reshape(batch_size, width)
            difficulties = _pick(mixture, numbers[:, 0])
            return self._mixed_batch(difficulties, numbers[:, 1:]), difficulties
        [difficulty] = _pick(mixture, stream.draw(1))
        width = self._size(difficulty).numbers
        samples = self._samples(difficulty, stream.draw(batch_size * width).reshape(batch_size, width))
        return samples.batch, [difficulty] * batch_size

    def _mixed_batch(self, difficulties: Sequence[Rung], numbers: NDArray[np.uint64]) -> Batch:
        """Rows of their own difficulties, each from its row of numbers."""
        rows: dict[Rung, list[int]] = {}
        for row, difficulty in enumerate(difficulties):
            rows.setdefault(difficulty, []).append(row)
        parts: list[tuple[Ids, Samples]] = []
        for difficulty, chosen in rows.items():
            own = numbers[chosen, : self._size(difficulty).numbers]
            parts.append((np.asarray(chosen), self._samples(difficulty, own)))
        return padded_batch(parts, self.padding)

    def _replacement(self, difficulty: Rung, stream: SymbolStream) -> Samples:
        """One training sample that holds none of the evaluation sets: the first of `stream`."""
        width = self._size(difficulty).numbers
        for _ in range(_ROW_ATTEMPTS):
            samples = self._samples(difficulty, stream.draw(width)[None])
            if not self.evaluation_sets.rows_held_out(samples.input_ids, [samples.input_ids.shape[1]]).size:
                return samples
        raise ValueError(f"{self.name}: training samples of {difficulty} are all in the validation or test set")

    def _size(self, difficulty: Rung) -> _Size:
        if difficulty not in self._sizes:
            draws = CountedDraws()
            tokens = self.samples(difficulty, draws).input_ids.shape[1]
            self._sizes[difficulty] = _Size(draws.used, tokens)
        return self._sizes[difficulty]

    def _samples(self, difficulty: Rung, numbers: NDArray[np.uint64]) -> Samples:
        draws = Draws(numbers)
        samples = self.samples(difficulty, draws)
        problem = samples.problem()
        if draws.used != numbers.shape[1]:
            problem = (
                f"{draws.used} random numbers for a sample, in the first call {numbers.shape[1]}: it has to be fixed"
            )
        if problem:
            raise ValueError(f"{self.name}: samples() of {difficulty}: {problem}")
        return samples


def _pick(mixture: Mapping[Rung, int], numbers: NDArray[np.uint64]) -> list[Rung]:
    """One difficulty for each number, in proportion to the weights."""
    rungs, totals = list(mixture), np.cumsum(list(mixture.values()))
    places = np.searchsorted(totals, below(numbers, int(totals[-1])), side="right")
    return [rungs[place] for place in places]
