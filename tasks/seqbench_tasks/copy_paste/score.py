"""Scores of copy-paste: one record per string, and measurements over strings."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from seqbench.contracts import Batch, Evaluation, Measurement, Predictor
from seqbench_tasks.copy_paste.config import CopyPasteConfig
from seqbench_tasks.copy_paste.generate import evaluation_strings

# Tokens of one forward call, at most, unless a single string is longer: evaluation runs in bounded memory.
TOKENS_PER_CALL = 16_384

Record = Mapping[str, Any]


def evaluate(config: CopyPasteConfig, predictor: Predictor, split: str) -> Evaluation:
    """Score `predictor` on all strings of "validation" or "test".

    Returns byte_accuracy, exact_match and loss for every payload length, then over all strings (coordinates {}).
    Raises ValueError for another split.
    """
    lengths, count = _strings_of(config, split)
    measurements: list[Measurement] = []
    items: list[Record] = []
    for length in lengths:
        records = [
            {"index": index, **record}
            for index, record in enumerate(_score_length(config, predictor, split, length, count), start=len(items))
        ]
        reach = predictor.attention_reach
        coordinates = {"length": length, "lookback": config.lookback(length), "reach": reach}
        measurements += _measure(records, split, coordinates)
        items += records
    return Evaluation(tuple(measurements + _measure(items, split, {})), tuple(items))


def score_strings(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Correct symbols and summed loss of each string.

    Args:
        logits: (strings, N, vocabulary) at the positions that predict the paste.
        labels: (strings, N), the pasted symbols.

    Returns:
        Correct symbols (strings,) int64, from 0 to N, and loss (strings,) fp64 in nats. A position whose logits hold a
        NaN, or whose largest logit is infinite, is wrong; the loss of its string is what the logits make of it.
    """
    largest, named = logits.max(dim=-1)
    # A NaN anywhere makes the maximum NaN; single logits of minus infinity only exclude symbols.
    correct = (named == labels) & largest.isfinite()
    losses = cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none").view(labels.shape)
    return correct.sum(dim=1), losses.double().sum(dim=1)


def largest_call(config: CopyPasteConfig) -> int:
    """Tokens of the largest forward call of either split."""
    return max(
        min(_strings_per_call(config, length), count) * config.sequence_length(length)
        for lengths, count in (_strings_of(config, "validation"), _strings_of(config, "test"))
        for length in lengths
    )


def _strings_of(config: CopyPasteConfig, split: str) -> tuple[tuple[int, ...], int]:
    """Payload lengths of a split, and the number of strings of each."""
    if split == "test":
        return config.test_lengths, config.test_strings_per_length
    if split == "validation":
        return config.validation_lengths, config.validation_strings_per_length
    raise ValueError(f"split must be 'validation' or 'test', not {split!r}")


def _strings_per_call(config: CopyPasteConfig, length: int) -> int:
    return max(1, TOKENS_PER_CALL // config.sequence_length(length))


def _score_length(
    config: CopyPasteConfig, predictor: Predictor, split: str, length: int, count: int
) -> Iterator[dict[str, Any]]:
    """One record, less its index, for each of the `count` strings with that payload length."""
    strings_per_call = _strings_per_call(config, length)
    lookback = config.lookback(length)
    for start in range(0, count, strings_per_call):
        batch = evaluation_strings(config, split, length, start, min(start + strings_per_call, count))
        correct, losses = _score_batch(predictor, batch, first_predicting_position=lookback)
        for correct_bytes, loss in zip(correct.tolist(), losses.tolist(), strict=True):
            yield {
                "length": length,
                "lookback": lookback,
                "correct_bytes": correct_bytes,
                "bytes": length,
                "exact": correct_bytes == length,
                "loss": loss / length,
            }


@torch.no_grad()
def _score_batch(predictor: Predictor, batch: Batch, first_predicting_position: int) -> tuple[Tensor, Tensor]:
    logits = predictor.logits(batch.input_ids)
    return score_strings(logits[:, first_predicting_position:], batch.labels[:, first_predicting_position:])


def _measure(
    records: Sequence[Record], split: str, coordinates: Mapping[str, int | float | str | None]
) -> list[Measurement]:
    """The three metrics over `records`: accuracy and loss weigh symbols equally, exact match weighs strings."""
    symbols, strings = sum(record["bytes"] for record in records), len(records)
    correct = sum(record["correct_bytes"] for record in records)
    exact = sum(record["exact"] for record in records)
    loss = math.fsum(record["loss"] * record["bytes"] for record in records)
    return [
        Measurement("byte_accuracy", correct / symbols, "fraction", symbols, split, coordinates),
        Measurement("exact_match", exact / strings, "fraction", strings, split, coordinates),
        Measurement("loss", loss / symbols, "nats per symbol", symbols, split, coordinates),
    ]
