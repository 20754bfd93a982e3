"""Associative recall: the generator against the definition of the pilot, and what its scores mean."""

import dataclasses
import math

import pytest
from generated_support import (
    Guesser,
    Solver,
    at_chance,
    data_digest,
    drawn,
    overall,
    rows_of,
    shares,
    within_sampling_error,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.contracts import IGNORED_LABEL, with_settings
from seqbench.errors import RequestError
from seqbench_tasks.recall import RecallConfig, RecallTask
from seqbench_tasks.recall.task import Pairs


def answer_of(inputs):
    """The definition: the value behind the one earlier appearance of the key between "?" (3) and "=" (4)."""
    assert inputs[-3] == 3 and inputs[-1] == 4
    [place] = [place for place, token in enumerate(inputs[:-2]) if token == inputs[-2]]
    return inputs[place + 1]


@settings(max_examples=15)
@given(st.integers(1, 8), st.integers(0, 40), st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_every_sequence_is_pairs_filler_question_answer(pairs, filler, seed, index):
    length = 3 * pairs + 4 + filler
    task = RecallTask(RecallConfig(training_lengths=(length,), training_pairs=(pairs,)))
    for inputs, labels in rows_of(task.training_batch(seed, index, 4)):
        assert len(inputs) == length and inputs[0] == 1
        facts = inputs[1 : 1 + 3 * pairs]
        assert len(set(facts[0::3])) == pairs and all(5 <= key <= 12 for key in facts[0::3])
        assert all(13 <= value <= 20 for value in facts[1::3]) and set(facts[2::3]) == {2}
        assert all(21 <= token <= 30 for token in inputs[1 + 3 * pairs : -3])
        assert labels == [IGNORED_LABEL] * (length - 1) + [answer_of(inputs)]


def test_keys_values_filler_and_questions_are_uniform():
    samples = drawn(RecallTask(RecallConfig()), Pairs(128, 4), 20_000)
    ids = samples.input_ids
    assert within_sampling_error(shares(ids[:, 1] - 5, 8), [1 / 8] * 8, 20_000)
    # Values are drawn for each pair anew: the same one twice is as frequent as any other two.
    assert within_sampling_error(shares(8 * (ids[:, 2] - 13) + ids[:, 5] - 13, 64), [1 / 64] * 64, 20_000)
    assert within_sampling_error(shares(ids[:, 13:-3] - 21, 10), [1 / 10] * 10, ids[:, 13:-3].size)
    asked = (ids[:, 1:13:3] == ids[:, [-2]]).argmax(axis=1)
    assert within_sampling_error(shares(asked, 4), [1 / 4] * 4, 20_000)


TINY = RecallTask.presets["tiny"].config


def test_random_answers_score_chance_and_looking_up_scores_one():
    task = RecallTask(dataclasses.replace(TINY, test_samples=1000))
    at_chance(task.evaluate(Guesser(64, range(13, 21)), "test"), task, task.test_set())
    assert {task.chance(difficulty) for difficulty in task.test_set()} == {0.125}
    solver = Solver(64, lambda row: [0] * (len(row) - 1) + [answer_of(row)])
    assert overall(task.evaluate(solver, "test"))["accuracy"].value == 1.0


def test_memory_is_a_value_for_each_key():
    assert RecallTask(TINY).memory_bits(Pairs(32, 4)) == pytest.approx(math.log2(8**4))


def test_the_pilot_is_as_published_and_shows_its_scores():
    preset = RecallTask.presets["pilot"]
    task = RecallTask(preset.config)
    assert task.vocab_size == 64 and list(task.test_set().items()) == [(Pairs(128, 4), 64 * 32)]
    assert (preset.trainer["steps"], preset.trainer["batch_size"], preset.trainer["learning_rate"]) == (200, 32, 3e-4)
    scores = [(score.metric, score.value) for score in task.published()]
    assert scores == [("accuracy", 0.254), ("accuracy", 0.756), ("accuracy", 0.992)]
    assert not RecallTask(RecallTask.presets["pilot-6"].config).published()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"test_lengths": "15"}, "4 pairs need a length of at least 16, not 15"),
        ({"test_pairs": "9"}, "test_pairs must be from 1 to 8"),
        ({"training_pairs": "2,4"}, "need as many entries each"),
    ],
)
def test_wrong_settings_say_what_is_wrong(changes, message):
    with pytest.raises(RequestError, match=message):
        with_settings(RecallConfig(), changes, "task recall")


def test_the_data_is_the_one_that_was_recorded():
    """Changes only together with the task's version."""
    config = RecallConfig(
        training_lengths=(32, 32, 32),
        training_pairs=(2, 4, 8),
        test_lengths=(32, 32, 32, 64),
        test_pairs=(2, 4, 8, 8),
    )
    assert data_digest(RecallTask(config)) == "c1a539f59c848246"
