"""Toy tasks that read a file: `toy_text:Reading`, and `toy_text:Measuring`, which trains nothing.

The environment variable TOY_KILL=2 ends the process before it measures the line of that number.
"""

import copy
import hashlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from seqbench.contracts import (
    Batch,
    Evaluation,
    Measurement,
    PublishedScore,
    TaskPlugin,
    TaskPreset,
    check_settings,
    setting,
)
from seqbench.errors import RequestError

TRAINER = {"steps": 4, "batch_size": 2, "warmup_steps": 1, "evaluation_interval": 0}


@dataclass(frozen=True)
class ReadingSettings:
    data: str = setting("text.txt", "file to read")
    length: int = setting(8, "letters of a sequence", minimum=2)

    def __post_init__(self):
        check_settings(self)


class Reading(TaskPlugin[ReadingSettings]):
    """Name the next letter."""

    name = "reading"
    summary = "name the next letter of a file"
    version = "1"
    config_class = ReadingSettings
    presets: ClassVar = {"tiny": TaskPreset(ReadingSettings(), "seconds", TRAINER)}
    primary_metric = "loss"
    higher_is_better = False
    primary_coordinate = "line"
    options: ClassVar = {"data": "data"}
    location_fields = frozenset({"data"})
    _rehearses = False

    def prepare(self):
        try:
            self._text = Path(self.config.data).read_text()
        except OSError as error:
            raise RequestError(f"{self.config.data} cannot be read; name a file with --data") from error

    def data_identity(self):
        return {"sha256": hashlib.sha256(self._text.encode()).hexdigest()}

    def published(self):
        return [PublishedScore("loss", 0.5, "Scribe, 1M", "arXiv 0000.00000, table 1")]

    @property
    def vocab_size(self):
        return 128

    @property
    def longest_sequence(self):
        return self.config.length

    @property
    def tokens_per_evaluation_call(self):
        return 64

    def training_batch(self, seed, index, batch_size):
        starts = [(seed * 7 + index * 3 + row) % (len(self._text) - self.config.length) for row in range(batch_size)]
        pieces = [self._text[start : start + self.config.length + 1] for start in starts]
        ids = torch.tensor([list(piece.encode()) for piece in pieces])
        return Batch(ids[:, :-1], ids[:, 1:], raw="".join(pieces).encode())

    def rehearsal(self):
        """The first line alone, of which nothing is told."""
        task = copy.copy(self)
        task._rehearses = True
        return task

    def evaluate(self, predictor, split):
        lines = self._text.splitlines()[: 1 if self._rehearses else None]
        measurements, items = [], []
        for number, line in enumerate(lines):
            record = predictor.record(
                f"line {number}", lambda line=line, number=number: self._measure(predictor, line, number)
            )
            measurements.append(Measurement("loss", record["loss"], "nats", 1, split, {"line": number}))
            items.append({"index": number, "loss": record["loss"]})
            predictor.progress(number + 1, len(lines), "lines")
        mean = sum(item["loss"] for item in items) / len(items)
        return Evaluation((*measurements, Measurement("loss", mean, "nats", len(items), split)), tuple(items))

    def _measure(self, predictor, line, number):
        if not self._rehearses:
            _tell(number)
        ids = torch.tensor([list(line.encode())])
        logits = predictor.logits(ids[:, :-1])
        return {"loss": float(torch.nn.functional.cross_entropy(logits[0], ids[0, 1:]))}


class Measuring(Reading):
    """Reads, and trains nothing."""

    trains = False

    def training_batch(self, seed, index, batch_size):
        raise AssertionError("a task that only measures was asked for training data")


def _tell(number):
    if os.environ.get("TOY_KILL") == str(number):
        os.kill(os.getpid(), signal.SIGKILL)
    if seen := os.environ.get("TOY_SEEN"):
        with open(seen, "a") as file:
            file.write(f"{number}\n")
