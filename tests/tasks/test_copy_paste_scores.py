"""Copy-paste: the evaluation against predictors of known truth."""

import dataclasses
import math

import pytest
import torch
from generated_support import overall
from torch import Tensor

from seqbench_tasks.copy_paste import CopyPasteConfig, CopyPasteTask
from seqbench_tasks.synthetic import task as kit

SMALL = CopyPasteConfig(filler_length=3, test_lengths=(4, 9, 15), test_strings_per_length=40)


class Copier:
    """Knows the answer as far back as `reach`, and answers at random beyond."""

    def __init__(self, config: CopyPasteConfig, reach: int | None = None) -> None:
        self.config, self.attention_reach = config, reach
        self.calls, self.tokens = [], []
        self.generator = torch.Generator().manual_seed(0)

    def logits(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        assert attention_mask is None
        self.calls.append(input_ids.shape[0])
        self.tokens.append(input_ids.numel())
        batch, length = input_ids.shape
        lookback = int((input_ids[0] == self.config.separator).nonzero()[0])
        answers = torch.randint(self.config.alphabet_size, (batch, length), generator=self.generator)
        if self.attention_reach is None or lookback <= self.attention_reach:
            answers[:, lookback:] = input_ids[:, : length - lookback]
        return torch.nn.functional.one_hot(answers, self.config.vocab_size).float() * 50


class Constant:
    attention_reach = 7

    def __init__(self, config: CopyPasteConfig, value: float) -> None:
        self.shape, self.value = config.vocab_size, value

    def logits(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return torch.full((*input_ids.shape, self.shape), self.value)


def by_length(evaluation, metric):
    return {
        measured.coordinates["length"]: measured.value
        for measured in evaluation.measurements
        if measured.metric == metric and measured.coordinates
    }


@pytest.mark.parametrize("split", ["test", "validation"])
def test_perfect_copier(split):
    evaluation = CopyPasteTask(SMALL).evaluate(Copier(SMALL), split)
    expected = SMALL.test_lengths if split == "test" else SMALL.validation_lengths
    assert tuple(by_length(evaluation, "byte_accuracy")) == expected
    for measured in evaluation.measurements:
        assert measured.split == split
        assert measured.value == pytest.approx(0.0 if measured.metric == "loss" else 1.0, abs=1e-6)
    assert all(item["exact"] and item["correct_bytes"] == item["bytes"] for item in evaluation.items)


def test_guessing_scores_chance():
    # Of 8 ** 4 strings no two of the 200 need be the same, which are left out.
    config = dataclasses.replace(SMALL, alphabet_size=8, test_strings_per_length=200)
    evaluation = CopyPasteTask(config).evaluate(Copier(config, reach=0), "test")
    accuracy = overall(evaluation)["byte_accuracy"]
    assert accuracy.n == 200 * (4 + 9 + 15)
    assert accuracy.value == pytest.approx(1 / 8, abs=4 * math.sqrt(7 / 64 / accuracy.n))
    assert by_length(evaluation, "exact_match")[15] == 0.0
    even = CopyPasteTask(config).evaluate(Constant(config, 0.0), "test")
    assert overall(even)["loss"].value == pytest.approx(math.log(config.vocab_size), rel=1e-6)


def test_limited_reach_shows_over_the_lookback():
    evaluation = CopyPasteTask(SMALL).evaluate(Copier(SMALL, reach=12), "test")
    accuracy = by_length(evaluation, "byte_accuracy")
    assert accuracy[4] == accuracy[9] == 1.0 and accuracy[15] < 0.1
    coordinates = [dict(m.coordinates) for m in evaluation.measurements if m.metric == "byte_accuracy"]
    assert coordinates == [{"length": n, "lookback": n + 3, "reach": 12} for n in (4, 9, 15)] + [{}]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_wrong(value):
    # An alphabet of two: the index that argmax happens to return would be right half of the time.
    config = dataclasses.replace(SMALL, alphabet_size=2)
    evaluation = CopyPasteTask(config).evaluate(Constant(config, value), "test")
    assert overall(evaluation)["byte_accuracy"].value == overall(evaluation)["exact_match"].value == 0.0


def test_items_and_counts_add_up():
    evaluation = CopyPasteTask(SMALL).evaluate(Copier(SMALL, reach=12), "test")
    items = evaluation.items
    assert [item["index"] for item in items] == list(range(120))
    assert [item["length"] for item in items] == [4] * 40 + [9] * 40 + [15] * 40
    assert all(item["bytes"] == item["length"] and item["lookback"] == item["length"] + 3 for item in items)
    assert all(set(item) == set(items[0]) for item in items)
    total = overall(evaluation)
    assert (total["byte_accuracy"].n, total["exact_match"].n, total["loss"].n) == (40 * 28, 120, 40 * 28)
    assert total["byte_accuracy"].value == sum(item["correct_bytes"] for item in items) / (40 * 28)
    assert total["loss"].value == pytest.approx(sum(item["loss"] * item["bytes"] for item in items) / (40 * 28))
    counts = {(m.metric, m.coordinates["length"]): m.n for m in evaluation.measurements if m.coordinates}
    assert counts["byte_accuracy", 9] == counts["loss", 9] == 360 and counts["exact_match", 9] == 40


@pytest.mark.parametrize("split", ["test", "validation"])
def test_item_scores_make_the_primary_figure(split):
    task = CopyPasteTask(SMALL)
    evaluation = task.evaluate(Fixed(SMALL), split)
    scores, weights = zip(*map(task.item_score, evaluation.items), strict=True)
    weighted = sum(score * weight for score, weight in zip(scores, weights, strict=True)) / sum(weights)
    assert weighted == pytest.approx(overall(evaluation)[task.primary_metric].value, rel=1e-12)
    assert 0 < weighted < 1 and all(0 <= score <= 1 for score in scores)


class Fixed:
    """Logits that depend on each sequence alone: a table lookup of the current and the previous token."""

    attention_reach = None

    def __init__(self, config: CopyPasteConfig) -> None:
        size = config.vocab_size
        self.table = torch.randn(size, size, size, generator=torch.Generator().manual_seed(1))

    def logits(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.table[input_ids.roll(1, dims=1), input_ids]


@pytest.mark.parametrize("budget", [1, 50, 10**6])
def test_results_do_not_depend_on_the_token_budget(budget, monkeypatch):
    expected = CopyPasteTask(SMALL).evaluate(Fixed(SMALL), "test")
    monkeypatch.setattr(kit, "TOKENS_PER_CALL", budget)
    assert CopyPasteTask(SMALL).evaluate(Fixed(SMALL), "test") == expected


def test_calls_stay_within_the_token_budget(monkeypatch):
    monkeypatch.setattr(kit, "TOKENS_PER_CALL", 60)
    predictor = Copier(SMALL)
    CopyPasteTask(SMALL).evaluate(predictor, "test")
    # Sequences of 11, 21 and 33 tokens.
    assert predictor.calls == [5] * 8 + [2] * 20 + [1] * 40


@pytest.mark.parametrize("budget", [20, 60, 500, 10**6])
def test_largest_call_is_declared(budget, monkeypatch):
    monkeypatch.setattr(kit, "TOKENS_PER_CALL", budget)
    task, predictor = CopyPasteTask(SMALL), Copier(SMALL)
    for split in ("validation", "test"):
        task.evaluate(predictor, split)
    assert task.tokens_per_evaluation_call == max(predictor.tokens)


def test_more_strings_leave_the_first_ones_as_they_were():
    more = dataclasses.replace(SMALL, test_strings_per_length=55)
    few_items = CopyPasteTask(SMALL).evaluate(Fixed(SMALL), "test").items
    more_items = CopyPasteTask(more).evaluate(Fixed(more), "test").items
    without_index = [{key: item[key] for key in item if key != "index"} for item in more_items]
    for number in range(3):
        for offset in range(40):
            item = dict(few_items[40 * number + offset])
            item.pop("index")
            assert item == without_index[55 * number + offset]


def test_other_splits_are_refused():
    with pytest.raises(ValueError, match="'training'"):
        CopyPasteTask(SMALL).evaluate(Copier(SMALL), "training")
