"""Tasks that break the contract, each a small variation of `right_task.RightTask`.

`WRONG` says which clauses each of them fails, no more and no fewer.
"""

import dataclasses
from typing import ClassVar

import numpy as np
import torch
from right_task import ROWS, RightTask, RightTaskSettings

from seqbench.contracts import IGNORED_LABEL, Contamination, Evaluation, TaskPreset

WRONG: dict[type, set[str]] = {}


def fails(*clauses):
    def register(task):
        WRONG[task] = set(clauses)
        return task

    return register


# What it says of itself.


@fails("settings")
class HasNoVersion(RightTask):
    version = ""


@fails("settings")
class NotesWithoutReach(RightTask):
    """Takes it that every model has a reach."""

    def report_notes(self, attention_reach):
        return [f"beyond {attention_reach + 1}"]


@fails("presets")
class SetsUnknownTrainerField(RightTask):
    presets: ClassVar = {"tiny": TaskPreset(RightTaskSettings(), "seconds", {"step": 20})}


@fails("presets")
class SetsImpossibleTrainerValue(RightTask):
    presets: ClassVar = {"tiny": TaskPreset(RightTaskSettings(), "seconds", {"steps": 20, "warmup_steps": 30})}


# The form of a batch.


@fails("batches")
class Int32Labels(RightTask):
    def batch(self, generator, rows):
        batch = super().batch(generator, rows)
        return dataclasses.replace(batch, labels=batch.labels.int())


@fails("batches")
class LongerThanDeclared(RightTask):
    @property
    def longest_sequence(self):
        return self.config.length - 1


@fails("batches")
class LabelsPadding(RightTask):
    def batch(self, generator, rows):
        batch = super().batch(generator, rows)
        return dataclasses.replace(batch, labels=batch.labels.masked_fill(batch.attention_mask == 0, 0))

    def share(self, right, labelled):
        return 0.5


@fails("batches")
class NothingToLearn(RightTask):
    def training_batch(self, seed, index, batch_size):
        batch = super().training_batch(seed, index, batch_size)
        return dataclasses.replace(batch, labels=torch.full_like(batch.labels, IGNORED_LABEL))


@fails("batches", "evaluation", "items", "repeatable", "evaluation-calls", "splits-apart", "held-out")
class PaddingOutsideVocabulary(RightTask):
    """Its padding id is one that the vocabulary does not count."""

    def batch(self, generator, rows):
        batch = super().batch(generator, rows)
        return dataclasses.replace(
            batch, input_ids=batch.input_ids.masked_fill(batch.attention_mask == 0, self.vocab_size)
        )


@fails("batches")
class OneRowFewer(RightTask):
    """Rounds the batch size to an even number."""

    def training_batch(self, seed, index, batch_size):
        return super().training_batch(seed, index, max(2, batch_size))


# A function of its arguments.


@fails("reproducible")
class CountsItsBatches(RightTask):
    served = 0

    def training_batch(self, seed, index, batch_size):
        self.served += 1
        return super().training_batch(seed, self.served, batch_size)


@fails("reproducible")
class UsesGlobalGenerator(RightTask):
    def generator(self, split, seed, index):
        return super().generator(split, seed, int(torch.randint(2**31, ())) if split == "training" else index)


@fails("reproducible")
class SeedsGlobalGenerator(RightTask):
    """The right numbers, and everybody else's generator set back."""

    def training_batch(self, seed, index, batch_size):
        torch.manual_seed(seed)
        return super().training_batch(seed, index, batch_size)


@fails("reproducible")
class HashesText(RightTask):
    """Right within one process: the hash of a text is another one in the next."""

    def generator(self, split, seed, index):
        return np.random.default_rng([hash(split) % 2**32, seed, index])


@fails("distinct")
class AddsSeedAndIndex(RightTask):
    def training_batch(self, seed, index, batch_size):
        return super().training_batch(0, seed + index, batch_size)


# Evaluation.


@fails("evaluation")
class MissesPrimaryCoordinate(RightTask):
    primary_coordinate = "lookback"


@fails("evaluation", "items")
class ScoresNaN(RightTask):
    def share(self, right, labelled):
        return float("nan")


@fails("evaluation")
class SaysTestOfValidation(RightTask):
    def score(self, right, labelled, split):
        return super().score(right, labelled, "test")


@fails("items")
class RepeatsIndices(RightTask):
    def score(self, right, labelled, split):
        found = super().score(right, labelled, split)
        return Evaluation(found.measurements, tuple({**item, "index": item["index"] % 8} for item in found.items))


@fails("items")
class ScoresItemsOtherwise(RightTask):
    """Items that do not make the figure that they are behind."""

    def item_score(self, item):
        return item["accuracy"], 1.0


@fails("repeatable")
class SamplesItsTestSet(RightTask):
    def generator(self, split, seed, index):
        return super().generator(split, seed, index if split == "training" else int(torch.randint(1000, ())))


@fails("repeatable")
class WarmsUp(RightTask):
    """Scores the first evaluation of an instance otherwise."""

    evaluations = 0

    def share(self, right, labelled):
        return super().share(right, labelled) / 2 if self.evaluations == 1 else super().share(right, labelled)

    def evaluate(self, predictor, split):
        self.evaluations += 1
        return super().evaluate(predictor, split)


@fails("evaluation-calls")
class AsksForMoreAtOnce(RightTask):
    @property
    def tokens_per_evaluation_call(self):
        return 4 * self.config.length


@fails("splits-apart", "held-out")
class TestsOnTraining(RightTask):
    """The test set is the beginning of the training stream."""

    def evaluate(self, predictor, split):
        self.split = split
        return super().evaluate(predictor, split)

    def generator(self, split, seed, index):
        return super().generator("training" if split == "test" else split, seed, index)


@fails("batches", "reproducible", "distinct")
class RunsOut(RightTask):
    """A stream that ends."""

    def training_batch(self, seed, index, batch_size):
        if index >= 30:
            raise IndexError("no batch after 30")
        return super().training_batch(seed, index, batch_size)


@fails("held-out")
class RepeatsTestItems(RightTask):
    split = "training"

    def evaluate(self, predictor, split):
        self.split = split
        return super().evaluate(predictor, split)

    def batch(self, generator, rows):
        batch = super().batch(generator, rows)
        if rows == ROWS and self.split == "test":
            for tensor in (batch.input_ids, batch.labels, batch.attention_mask):
                tensor[7] = tensor[2]
        return batch


@fails("held-out")
class TrainsOnTwoTestItems(RightTask):
    """In a few of its batches, and says nothing of it."""

    def training_batch(self, seed, index, batch_size):
        batch = super().training_batch(seed, index, batch_size)
        if index in (2, 5):
            tested = self.batch(self.generator("test", 0, 0), ROWS)
            batch.input_ids[0], batch.labels[0] = tested.input_ids[index], tested.labels[index]
            batch.attention_mask[0] = tested.attention_mask[index]
        return batch


@fails("held-out")
class CountsTooFewOfThem(TrainsOnTwoTestItems):
    counted = 1

    def contamination(self, seed, batches, batch_size):
        return [Contamination("test", ROWS, ROWS, self.counted, 0)]
