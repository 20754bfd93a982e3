"""Set disjointness: the generator against the definition of JRT, and what its scores mean."""

import dataclasses
import itertools
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
from seqbench_tasks.set_disjointness import SetDisjointnessConfig, SetDisjointnessTask
from seqbench_tasks.set_disjointness.task import Sizes


def answer_of(inputs):
    """The definition: the one token on both sides of the separator (2)."""
    middle = inputs.index(2)
    [shared] = set(inputs[1:middle]) & set(inputs[middle + 1 : -1])
    return shared


@settings(max_examples=15)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 30), st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_two_lists_share_the_one_token_that_is_asked_for(first, second, spare, seed, index):
    config = SetDisjointnessConfig(
        vocabulary=max(8, first + second + 4 + spare),
        training_first=(first,),
        training_second=(second,),
        test_first=(1,),
        test_second=(1,),
    )
    for inputs, labels in rows_of(SetDisjointnessTask(config).training_batch(seed, index, 4)):
        assert len(inputs) == first + second + 3
        assert inputs[0] == 1 and inputs[1 + first] == 2 and inputs[-1] == 3
        lists = inputs[1 : 1 + first], inputs[2 + first : -1]
        assert [len(set(tokens)) for tokens in lists] == [first, second]
        assert all(4 <= token < config.vocabulary for token in itertools.chain(*lists))
        assert labels == [IGNORED_LABEL] * (len(inputs) - 1) + [answer_of(inputs)]


def test_the_shared_token_stands_anywhere_in_both_lists_and_is_any_token():
    config = SetDisjointnessConfig(
        vocabulary=14, training_first=(3,), training_second=(4,), test_first=(3,), test_second=(4,)
    )
    samples = drawn(SetDisjointnessTask(config), Sizes(3, 4), 20_000)
    answers = samples.labels[:, [-1]]
    places = (
        (samples.input_ids[:, 1:4] == answers).argmax(axis=1),
        (samples.input_ids[:, 5:9] == answers).argmax(axis=1),
    )
    assert within_sampling_error(shares(4 * places[0] + places[1], 12), [1 / 12] * 12, 20_000)
    assert within_sampling_error(shares(answers - 4, 10), [1 / 10] * 10, 20_000)
    for column in (1, 2, 3, 5, 8):
        assert within_sampling_error(shares(samples.input_ids[:, column] - 4, 10), [1 / 10] * 10, 20_000)


TINY = SetDisjointnessTask.presets["tiny"].config


def test_random_answers_score_chance_and_comparing_scores_one():
    task = SetDisjointnessTask(dataclasses.replace(TINY, test_samples=600))
    at_chance(task.evaluate(Guesser(64, range(4, 64)), "test"), task, task.test_set())
    assert {task.chance(difficulty) for difficulty in task.test_set()} == {1 / 60}
    solver = Solver(64, lambda row: [0] * (len(row) - 1) + [answer_of(row)])
    assert overall(task.evaluate(solver, "test"))["accuracy"].value == 1.0


def test_memory_is_a_set_of_the_first_lists_size():
    config = SetDisjointnessConfig(
        vocabulary=14, training_first=(2,), training_second=(3,), test_first=(2,), test_second=(3,)
    )
    task = SetDisjointnessTask(config)
    # Ten tokens, one of which is left for the rest of the second list.
    assert task.memory_bits(Sizes(2, 3)) == pytest.approx(math.log2(math.comb(9, 2)))
    assert task.memory_bits(Sizes(5, 1)) == 0


def test_sizes_are_published_in_both_orders():
    preset = SetDisjointnessTask.presets["jrt"]
    task = SetDisjointnessTask(preset.config)
    trained = {(sizes.first, sizes.second) for sizes in task.training_mixture()}
    assert trained == {
        size for pair in ((4, 16), (8, 32), (64, 16), (4, 128), (16, 256), (4, 256)) for size in (pair, pair[::-1])
    }
    tested = {(sizes.first, sizes.second) for sizes in task.test_set()}
    assert {(16, 768), (4, 768), (768, 16), (768, 4)} <= tested and tested == {size[::-1] for size in tested}
    assert set(task.test_set().values()) == {1000} and task.vocab_size == 2048
    assert preset.trainer["batch_size"] == 128


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"vocabulary": "20"}, "lists of 4 and 16 need 20 different tokens, and a vocabulary of 20 has 16; raise"),
        ({"test_first": "4"}, "need as many entries each: test_first has 1, test_second has 2"),
        ({"test_first": "0,4"}, "test_first must be at least 1"),
    ],
)
def test_wrong_settings_say_what_is_wrong(changes, message):
    with pytest.raises(RequestError, match=message):
        with_settings(SetDisjointnessConfig(), changes, "task set-disjointness")


def test_the_data_is_the_one_that_was_recorded():
    """Changes only together with the task's version."""
    config = SetDisjointnessConfig(
        vocabulary=64,
        training_first=(2, 4, 4, 8, 8, 16),
        training_second=(8, 8, 16, 2, 4, 4),
        test_first=(2, 4, 4, 4, 8, 8, 16, 32),
        test_second=(8, 8, 16, 32, 2, 4, 4, 4),
    )
    assert data_digest(SetDisjointnessTask(config)) == "874b7e68a5d67ca8"
