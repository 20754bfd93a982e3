"""Multi-query associative recall: the generator against the definition of Zoology, and what its scores mean."""

import dataclasses
import itertools
import math

import numpy as np
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
from seqbench_tasks.mqar import MQARConfig, MQARTask
from seqbench_tasks.mqar.task import Pairs, _gap_weights

seeds, indices = st.integers(0, 2**64 - 1), st.integers(0, 2**40)
few = settings(max_examples=15)


def one_size(length, pairs, **settings):
    """A task with sequences of one size."""
    lengths, counts = (length,), (pairs,)
    ladders = {"training_lengths": lengths, "training_pairs": counts, "test_lengths": lengths, "test_pairs": counts}
    return MQARTask(MQARConfig(**ladders, **settings))


@st.composite
def tasks(draw, **fixed):
    pairs = draw(st.integers(1, 9))
    length = 2 * draw(st.integers(2 * pairs, 2 * pairs + 20))
    vocabulary = draw(st.integers(2 * pairs + 2, 2 * pairs + 60).filter(lambda size: size >= 8))
    return one_size(length, pairs, vocabulary=vocabulary, gap_power=draw(st.sampled_from([0.01, 0.5, 1])), **fixed)


def values_by_key(inputs, pairs):
    return {inputs[2 * place]: inputs[2 * place + 1] for place in range(pairs)}


def answers_of(inputs, pairs):
    """The definition, for sequences whose other positions hold 0: any key behind the pairs wants its value."""
    known = values_by_key(inputs, pairs)
    behind = [known.get(token, IGNORED_LABEL) for token in inputs[2 * pairs :]]
    return [IGNORED_LABEL] * (2 * pairs) + behind


@few
@given(tasks(random_non_queries=False), seeds, indices)
def test_labels_are_the_values_of_the_keys_that_come_again(task, seed, index):
    [pairs] = task.config.training_pairs
    for inputs, labels in rows_of(task.training_batch(seed, index, 4)):
        assert labels == answers_of(inputs, pairs)
        assert set(inputs[2 * pairs :]) <= {0, *inputs[0 : 2 * pairs : 2]}


@few
@given(tasks(random_non_queries=True), seeds, indices)
def test_each_key_is_asked_exactly_once_at_every_second_position(task, seed, index):
    [pairs], [length] = task.config.training_pairs, task.config.training_lengths
    half = task.config.vocabulary // 2
    for inputs, labels in rows_of(task.training_batch(seed, index, 4)):
        known = values_by_key(inputs, pairs)
        assert len(inputs) == length and len(known) == pairs == len(set(known.values()))
        assert all(1 <= key < half <= value < task.vocab_size for key, value in known.items())
        asked = [place for place, label in enumerate(labels) if label != IGNORED_LABEL]
        assert all(place >= 2 * pairs and place % 2 == 0 for place in asked)
        assert sorted(inputs[place] for place in asked) == sorted(known)
        assert all(labels[place] == known[inputs[place]] for place in asked)
        assert all(0 <= token < task.vocab_size for token in inputs)


@pytest.mark.parametrize("power", [0.01, 0.4, 1.0])
def test_gaps_follow_the_power_law_one_after_another(power):
    samples = drawn(one_size(14, 2, vocabulary=8, gap_power=power), Pairs(14, 2), 40_000)
    places = {}
    for key in (0, 1):
        queries = (samples.input_ids == samples.input_ids[:, [2 * key]]) & (samples.labels != IGNORED_LABEL)
        places[key] = (queries.argmax(axis=1) - 4) // 2
    law = np.arange(1, 6, dtype=float) ** (power - 1)
    law /= law.sum()
    # The second key is drawn among the places that the first has left.
    both = [[p * q / (1 - p) * (first != second) for second, q in enumerate(law)] for first, p in enumerate(law)]
    found = shares(5 * places[0] + places[1], 25)
    assert within_sampling_error(found, np.ravel(both), 40_000)


def test_gap_weights_are_the_power_law_and_fit_into_32_bits():
    for places, power in ((1, 0.01), (7, 1.0), (16, 0.01), (256, 0.01), (5000, 0.3)):
        weights = np.array(_gap_weights(places, power))
        law = np.arange(1, places + 1, dtype=float) ** (power - 1)
        assert weights.min() >= 1 and 2**32 - 2 * places - 2 < weights.sum() < 2**32
        assert np.allclose(weights / weights.sum(), law / law.sum(), rtol=1e-3)


def test_keys_values_and_the_rest_are_uniform():
    samples = drawn(one_size(12, 2, vocabulary=12), Pairs(12, 2), 20_000)
    keys, values, ids = samples.input_ids[:, 0:4:2], samples.input_ids[:, 1:4:2], samples.input_ids
    assert within_sampling_error(shares(keys[:, 0] - 1, 5), [1 / 5] * 5, 20_000)
    ordered = shares(6 * (values[:, 0] - 6) + values[:, 1] - 6, 36)
    assert within_sampling_error(ordered, [0 if i % 7 == 0 else 1 / 30 for i in range(36)], 20_000)
    # Odd positions behind the pairs are never queries.
    assert within_sampling_error(shares(ids[:, 5::2], 12), [1 / 12] * 12, ids[:, 5::2].size)


def test_one_batch_has_one_length_and_shares_hold():
    config = MQARConfig(
        vocabulary=40, training_lengths=(16, 24, 32), training_pairs=(4, 4, 8), training_shares=(5, 1, 2)
    )
    task = MQARTask(config)
    lengths = [task.training_batch(0, index, 2).input_ids.shape[1] for index in range(1000)]
    assert within_sampling_error(shares(lengths, 33)[[16, 24, 32]], [5 / 8, 1 / 8, 2 / 8], 1000)
    assert task.longest_sequence == 32


TINY = MQARTask.presets["tiny"].config


def test_random_answers_score_chance():
    config = dataclasses.replace(TINY, vocabulary=64, test_lengths=(64, 64), test_pairs=(4, 8))
    task = MQARTask(config)
    at_chance(task.evaluate(Guesser(64, range(32, 64)), "test"), task, task.test_set())


@pytest.mark.parametrize("split", ["validation", "test"])
def test_looking_up_scores_one(split):
    config = dataclasses.replace(TINY, random_non_queries=False, test_samples=32)
    task = MQARTask(config)

    def first_value(row):
        """Wherever a key stands, the token behind its first appearance."""
        behind = {}
        for token, value in itertools.pairwise(row):
            behind.setdefault(token, value)
        return [behind.get(token, 0) for token in row]

    solver = Solver(task.vocab_size, first_value)
    measured = overall(task.evaluate(solver, split))
    assert measured["accuracy"].value == measured["exact_match"].value == 1.0


def test_memory_is_counted_in_assignments_of_values():
    task = one_size(12, 3, vocabulary=12)
    assert task.memory_bits(Pairs(12, 3)) == pytest.approx(math.log2(6 * 5 * 4))
    assert "one over its pairs" in " ".join(task.report_notes(None))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"test_lengths": "62"}, "16 pairs need a length that is even and at least 64"),
        ({"test_lengths": "65"}, "even and at least 64"),
        ({"test_pairs": "4,8"}, "need as many entries each: test_lengths has 1, test_pairs has 2"),
        ({"test_lengths": "64,64", "test_pairs": "4,4"}, "name 64/4 more than once"),
        ({"training_shares": "1,2"}, "training_shares has 2 entries, and training_pairs 1"),
        ({"vocabulary": "32"}, "16 pairs need as many different keys, and a vocabulary of 32 has 15; raise"),
        ({"gap_power": "0"}, "gap_power must be from"),
    ],
)
def test_wrong_settings_say_what_is_wrong(changes, message):
    base = MQARConfig(
        training_lengths=(64,), training_pairs=(16,), test_lengths=(64,), test_pairs=(16,), vocabulary=128
    )
    with pytest.raises(RequestError, match=message):
        with_settings(base, changes, "task mqar")


def test_published_presets_have_the_published_sizes():
    panels = [MQARTask.presets[f"zoology-{length}"] for length in (64, 128, 256, 512)]
    sizes = [(*panel.config.test_lengths, *panel.config.test_pairs, panel.config.vocabulary) for panel in panels]
    assert sizes == [(64, 4, 8192), (128, 8, 8192), (256, 16, 8192), (512, 64, 8192)]
    assert all(panel.config.test_samples == 3000 and panel.config.gap_power == 0.01 for panel in panels)
    assert all(panel.trainer["steps"] * panel.trainer["batch_size"] <= 64 * 100_000 for panel in panels)
    mix = MQARTask.presets["zoology-mix"].config
    assert list(zip(mix.training_lengths, mix.training_pairs, mix.training_shares, strict=True)) == [
        *((64, 4, 5), (128, 8, 1), (256, 16, 1), (256, 32, 1), (256, 64, 1))
    ]
    assert (mix.test_lengths[-1], mix.test_pairs[-1]) == (1024, 256)


def test_the_data_is_the_one_that_was_recorded():
    """Changes only together with the task's version."""
    config = MQARConfig(
        vocabulary=128,
        training_lengths=(64, 64, 64),
        training_pairs=(4, 8, 16),
        training_shares=(1, 1, 1),
        test_lengths=(64, 64, 64, 128),
        test_pairs=(4, 8, 16, 32),
    )
    assert data_digest(MQARTask(config)) == "29533d7c4af37cfe"
