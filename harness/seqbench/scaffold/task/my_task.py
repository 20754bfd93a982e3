"""my-task: write a string backwards, a starting point for a task of your own."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqbench.contracts import (
    IGNORED_LABEL,
    LOOKBACK,
    Batch,
    Evaluation,
    Measurement,
    Predictor,
    TaskPlugin,
    TaskPreset,
    check_settings,
    setting,
)
from seqbench.errors import RequestError

# Every stream of numbers has its split in its seed, so that no two splits share one.
SPLITS = {"training": 0, "validation": 1, "test": 2}


@dataclass(frozen=True)
class MyTaskSettings:
    """Size of the alphabet, and lengths in symbols; every field can be changed with --set task.FIELD=VALUE."""

    alphabet_size: int = setting(32, "different symbols; chance is one over it", minimum=2, maximum=4096)
    # Of four symbols there are a million strings: training would see some of those that are tested.
    minimum_length: int = setting(5, "shortest string in training", minimum=1, maximum=2**20)
    maximum_length: int = setting(8, "longest string in training", minimum=1, maximum=2**20)
    test_lengths: tuple[int, ...] = setting(
        (5, 6, 8, 10), "string lengths of the validation and test sets", minimum=1, maximum=2**20
    )
    strings_per_length: int = setting(128, "validation and test strings of each length", minimum=1, maximum=2**16)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.minimum_length > self.maximum_length:
            raise RequestError(
                f"minimum_length {self.minimum_length} is larger than maximum_length {self.maximum_length}"
            )


def random_numbers(split: str, seed: int, index: int, count: int) -> NDArray[np.uint64]:
    """`count` numbers from 0 to 2^64 - 1: a pure function of the arguments, the same on every machine."""
    return np.random.PCG64([SPLITS[split], seed, index]).random_raw(count)


class MyTaskPlugin(TaskPlugin[MyTaskSettings]):
    """Read random symbols and a separator, then name the symbols from the last to the first.

    One sample of length 3; "|" is the separator, and "-" marks positions without a label:

        position   0  1  2  3  4  5
        inputs     7  1  4  |  4  1
        labels     -  -  -  4  1  7

    The symbol in place k of the answer, counted from 0, stood 2k + 1 tokens before the position that has to name it.
    """

    name = "my-task"
    summary = "write a random string backwards, measured over the look-back"
    version = "1"
    config_class = MyTaskSettings
    presets = {
        "tiny": TaskPreset(MyTaskSettings(), "5 to 8 symbols out of 32", {"steps": 500, "learning_rate": 4e-3}),
        "long": TaskPreset(
            MyTaskSettings(maximum_length=64, test_lengths=(8, 16, 32, 64, 96)), "5 to 64 symbols out of 32"
        ),
    }
    primary_metric = "accuracy"
    higher_is_better = True
    primary_coordinate = LOOKBACK

    @property
    def vocab_size(self) -> int:
        """The symbols and the separator."""
        return self.config.alphabet_size + 1

    @property
    def longest_sequence(self) -> int:
        """Tokens of the longest training sequence: the string, the separator, and all of the answer but its end."""
        return 2 * self.config.maximum_length

    @property
    def tokens_per_evaluation_call(self) -> int:
        """Tokens that `evaluate` hands over at once: all strings of the greatest length."""
        return 2 * max(self.config.test_lengths) * self.config.strings_per_length

    def training_batch(self, seed: int, index: int, batch_size: int) -> Batch:
        """Strings of one length, which is drawn anew for each batch."""
        config = self.config
        numbers = random_numbers("training", seed, index, 1 + batch_size * config.maximum_length)
        length = config.minimum_length + int(numbers[0] % (config.maximum_length - config.minimum_length + 1))
        return self._batch(numbers[1 : 1 + batch_size * length], length)

    def _batch(self, numbers: NDArray[np.uint64], length: int) -> Batch:
        """Strings of `length` symbols made of these numbers, each followed by the separator and its answer."""
        strings = (numbers % self.config.alphabet_size).astype(np.int64).reshape(-1, length)
        backwards = strings[:, ::-1]
        separator = np.full((len(strings), 1), self.config.alphabet_size)
        input_ids = np.concatenate((strings, separator, backwards[:, :-1]), axis=1)
        labels = np.concatenate((np.full_like(strings, IGNORED_LABEL), backwards), axis=1)
        return Batch(torch.from_numpy(input_ids), torch.from_numpy(labels))

    def evaluate(self, predictor: Predictor, split: str) -> Evaluation:
        """Accuracy by look-back and over all symbols (fractions, 0 to 1), and one item per string."""
        by_lookback: dict[int, list[Tensor]] = defaultdict(list)
        items: list[dict[str, Any]] = []
        for length in self.config.test_lengths:
            batch = self._batch(random_numbers(split, length, 0, self.config.strings_per_length * length), length)
            named = predictor.logits(batch.input_ids)[:, length:].argmax(dim=-1)
            correct = named == batch.labels[:, length:]
            for place in range(length):
                by_lookback[2 * place + 1].append(correct[:, place])
            for share in correct.double().mean(dim=1).tolist():
                items.append({"index": len(items), "length": length, "accuracy": share})
        measurements = [
            measure(torch.cat(parts), split, {LOOKBACK: lookback}) for lookback, parts in sorted(by_lookback.items())
        ]
        everything = torch.cat([part for parts in by_lookback.values() for part in parts])
        return Evaluation((*measurements, measure(everything, split, {})), tuple(items))

    def item_score(self, item: Mapping[str, Any]) -> tuple[float, float]:
        """Accuracy of one string, weighted by its symbols."""
        return item["accuracy"], item["length"]

    def report_notes(self, attention_reach: int | None) -> list[str]:
        """What to set the scores beside."""
        del attention_reach
        return [f"Chance is {1 / self.config.alphabet_size:.1%}."]


def measure(correct: Tensor, split: str, coordinates: Mapping[str, int]) -> Measurement:
    """The share of `correct`, with the number of symbols behind it."""
    share = correct.double().mean().item()
    return Measurement("accuracy", share, "fraction", correct.numel(), split, coordinates)
