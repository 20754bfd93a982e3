"""A small task that keeps every clause of the contract: name the token before this one, in rows of any length.

The wrong tasks beside it are variations of it, each of one method.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from seqbench.contracts import (
    IGNORED_LABEL,
    Batch,
    Evaluation,
    Measurement,
    TaskPlugin,
    TaskPreset,
    check_settings,
    setting,
)

SPLITS = {"training": 0, "validation": 1, "test": 2}
ROWS, ROWS_PER_CALL = 24, 8


@dataclass(frozen=True)
class RightTaskSettings:
    symbols: int = setting(9, "different tokens; id 0 is padding", minimum=3)
    length: int = setting(12, "tokens of the longest sequence", minimum=6)

    def __post_init__(self):
        check_settings(self)


class RightTask(TaskPlugin[RightTaskSettings]):
    """Keeps every clause."""

    name = "right-task"
    summary = "name the token before this one"
    version = "1"
    config_class = RightTaskSettings
    presets: ClassVar = {
        "tiny": TaskPreset(RightTaskSettings(), "seconds", {"steps": 20, "warmup_steps": 2}),
        "longer": TaskPreset(RightTaskSettings(length=40), "longer"),
    }
    primary_metric = "accuracy"
    higher_is_better = True
    primary_coordinate = "position"

    @property
    def vocab_size(self):
        return self.config.symbols

    @property
    def longest_sequence(self):
        return self.config.length

    @property
    def tokens_per_evaluation_call(self):
        return ROWS_PER_CALL * self.config.length

    def training_batch(self, seed, index, batch_size):
        return self.batch(self.generator("training", seed, index), batch_size)

    def evaluate(self, predictor, split):
        batch = self.batch(self.generator(split, 0, 0), ROWS)
        parts = [batch.rows(start, start + ROWS_PER_CALL) for start in range(0, ROWS, ROWS_PER_CALL)]
        logits = torch.cat([predictor.logits(part.input_ids, part.attention_mask) for part in parts])
        labelled = batch.labels != IGNORED_LABEL
        return self.score((logits.argmax(dim=-1) == batch.labels) & labelled, labelled, split)

    def score(self, right, labelled, split):
        measurements = [Measurement("accuracy", self.share(right, labelled), "fraction", int(labelled.sum()), split)]
        for position in (1, 2, 3):
            found, there = right[:, position], labelled[:, position]
            coordinates = {"position": position}
            measurements.append(
                Measurement("accuracy", self.share(found, there), "fraction", int(there.sum()), split, coordinates)
            )
        items = [
            {"index": index, "accuracy": self.share(found, there), "tokens": int(there.sum())}
            for index, (found, there) in enumerate(zip(right, labelled, strict=True))
        ]
        return Evaluation(tuple(measurements), tuple(items))

    def item_score(self, item):
        return item["accuracy"], item["tokens"]

    def share(self, right, labelled):
        return float(right.sum() / labelled.sum())

    def generator(self, split, seed, index):
        return np.random.default_rng([SPLITS[split], seed, index])

    def batch(self, generator, rows):
        shape = (rows, self.config.length)
        lengths = generator.integers(6, self.config.length + 1, size=(rows, 1))
        mask = torch.from_numpy((np.arange(self.config.length) < lengths).astype(np.int64))
        tokens = torch.from_numpy(generator.integers(1, self.config.symbols, size=shape)) * mask
        labels = tokens.roll(1, dims=1).masked_fill(mask == 0, IGNORED_LABEL)
        labels[:, 0] = IGNORED_LABEL
        return Batch(tokens, labels, mask)
