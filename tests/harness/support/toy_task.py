"""A toy task, named on the command line by dotted path: `toy_task:Recall`.

The environment variable TOY_SIGNAL=SIGKILL@train:7 (or SIGINT@validation:1, SIGKILL@test:1) ends the process at a
chosen place: before training batch 7 is made, or in the n-th evaluation of a split; SIGTERM@import:1 while this module
is imported, SIGTERM@plan:1 while the run is planned. With TOY_WORKER, a process of its own is at work there.
TOY_REMOVE=train:7 removes the folder that TOY_STORE names there. TOY_PAUSE gives seconds to wait before every tenth
batch.
"""

import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar

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

TRAINER = {
    "steps": 12,
    "batch_size": 4,
    "learning_rate": 1e-2,
    "warmup_steps": 2,
    "log_interval": 2,
    "checkpoint_interval": 4,
    "evaluation_interval": 4,
}
LOOKBACKS = (1, 2, 3)


@dataclass(frozen=True)
class RecallSettings:
    symbols: int = setting(8, "different tokens", minimum=2)
    length: int = setting(6, "tokens of a sequence", minimum=4, maximum=10**12)
    padded: bool = setting(False, "whether rows have lengths of their own")
    labelled: bool = setting(True, "whether there is anything to predict")
    finite: bool = setting(True, "whether the score is a finite number")

    def __post_init__(self):
        check_settings(self)


class Recall(TaskPlugin[RecallSettings]):
    """Name the token before this one."""

    name = "recall"
    summary = "name the token before this one"
    version = "1"
    config_class = RecallSettings
    presets: ClassVar = {
        "tiny": TaskPreset(RecallSettings(), "seconds", TRAINER),
        "longer": TaskPreset(RecallSettings(length=9), "longer", {**TRAINER, "steps": 20, "optimizer": "muon"}),
    }
    primary_metric = "accuracy"
    higher_is_better = True
    primary_coordinate = "lookback"

    def __init__(self, config):
        super().__init__(config)
        _maybe_signal("plan", 1)
        self._evaluations = Counter()
        self._rehearses = False

    @property
    def vocab_size(self):
        return self.config.symbols

    @property
    def longest_sequence(self):
        return self.config.length

    @property
    def tokens_per_evaluation_call(self):
        return 8 * self.config.length

    def training_batch(self, seed, index, batch_size):
        _maybe_signal("train", index)
        time.sleep(float(os.environ.get("TOY_PAUSE", 0)) if index % 10 == 9 else 0)
        return self._batch(seed * 1_000_003 + index, batch_size)

    def rehearsal(self):
        """The same task, whose evaluations do not count as places of a signal, and whose scores are finite."""
        task = type(self)(replace(self.config, finite=True))
        task._rehearses = True
        return task

    def evaluate(self, predictor, split):
        if not self._rehearses:
            self._evaluations[split] += 1
            _maybe_signal(split, self._evaluations[split])
        # Whoever evaluates may draw from the global generator, which must not change training.
        torch.rand(1)
        batch = self._batch({"validation": 2**31, "test": 2**31 + 1}[split], 8)
        right = predictor.logits(batch.input_ids, batch.attention_mask).argmax(-1) == batch.labels
        measurements, items = [], []
        for lookback in LOOKBACKS:
            value = float(right[:, lookback:].float().mean()) if self.config.finite else float("nan")
            coordinates = {"lookback": lookback, "reach": predictor.attention_reach}
            measurements.append(Measurement("accuracy", value, "fraction", 8, split, coordinates))
        overall = float(right[:, 1:].float().mean()) if self.config.finite else float("nan")
        measurements.append(Measurement("accuracy", overall, "fraction", 8, split))
        items = [{"index": index, "accuracy": float(row[1:].float().mean())} for index, row in enumerate(right)]
        return Evaluation(tuple(measurements), tuple(items))

    def report_notes(self, attention_reach):
        return [f"chance is 1/{self.config.symbols}"]

    def _batch(self, key, batch_size):
        generator = torch.Generator().manual_seed(key)
        shape = (batch_size, self.config.length)
        input_ids = torch.randint(self.config.symbols, shape, generator=generator)
        labels = torch.full(shape, IGNORED_LABEL)
        if self.config.labelled:
            labels[:, 1:] = input_ids[:, :-1]
        if not self.config.padded:
            return Batch(input_ids, labels)
        lengths = 2 + torch.arange(batch_size) % (self.config.length - 1)
        mask = (torch.arange(self.config.length) < lengths[:, None]).long()
        return Batch(input_ids * mask, labels.masked_fill(mask == 0, IGNORED_LABEL), mask)


class OtherData(Recall):
    """Shows every model other data."""

    def training_batch(self, seed, index, batch_size):
        return self._batch(os.getpid() * 1000 + index, batch_size)


class RaisesInTest(Recall):
    def evaluate(self, predictor, split):
        if split == "test":
            raise LookupError("the test set is gone")
        return super().evaluate(predictor, split)


def _maybe_signal(place, count):
    name, _, target = os.environ.get("TOY_SIGNAL", "").partition("@")
    if name and target == f"{place}:{count}":
        if worker := os.environ.get("TOY_WORKER"):
            with open(worker, "w") as file:
                file.write(str(subprocess.Popen(["sleep", "600"]).pid))
        os.kill(os.getpid(), getattr(signal, name))
    if os.environ.get("TOY_REMOVE") == f"{place}:{count}":
        shutil.rmtree(os.environ["TOY_STORE"])


_maybe_signal("import", 1)
