"""Multi-query joint recall: the generator against the definition of HAX, and what its scores mean."""

import itertools

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
from seqbench_tasks.joint_recall import JointRecallConfig, JointRecallTask
from seqbench_tasks.joint_recall.task import Cell

BEGIN, PADDING, SEPARATOR, FIRST = 1, 3, 4, 10


@st.composite
def configs(draw):
    fewest = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    most = draw(st.integers(fewest[0], 6)), draw(st.integers(fewest[1], 6))
    return JointRecallConfig(
        fewest_contexts=fewest[0],
        most_contexts=most[0],
        fewest_keys=fewest[1],
        most_keys=most[1],
        values=draw(st.integers(2, 20)),
    )


def labels_of(config, inputs):
    """The definition: read all facts up to the separator, then give the value of each key of the context named last."""
    first_key, first_value = FIRST + config.most_contexts, FIRST + config.most_contexts + config.most_keys
    known, labels, context = {}, [], None
    separator = inputs.index(SEPARATOR)
    for place, token in enumerate(inputs):
        label = IGNORED_LABEL
        if FIRST <= token < first_key:
            context = token
        elif first_key <= token < first_value:
            if place < separator:
                known[context, token] = inputs[place + 1]
            else:
                label = known[context, token]
        labels.append(label)
    return labels, known


@settings(max_examples=15)
@given(configs(), st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_all_facts_are_said_twice_and_asked_in_the_second_half(config, seed, index):
    first_key, first_value = FIRST + config.most_contexts, FIRST + config.most_contexts + config.most_keys
    for inputs, labels in rows_of(JointRecallTask(config).training_batch(seed, index, 4)):
        expected, known = labels_of(config, inputs)
        assert labels == expected
        contexts, keys = ({fact[part] for fact in known} for part in (0, 1))
        assert contexts == set(range(FIRST, FIRST + len(contexts)))
        assert keys == set(range(first_key, first_key + len(keys)))
        assert known.keys() == set(itertools.product(contexts, keys))
        assert config.fewest_contexts <= len(contexts) <= config.most_contexts
        assert config.fewest_keys <= len(keys) <= config.most_keys
        assert all(first_value <= value < first_value + config.values for value in known.values())
        half = len(contexts) * (2 * len(keys) + 1)
        assert len(inputs) == 2 * half + 2 and inputs[0] == BEGIN and inputs[half + 1] == SEPARATOR
        # The second half says the same facts: each answer is also the next input.
        asked = [place for place, label in enumerate(labels) if label != IGNORED_LABEL]
        assert len(asked) == len(known) and all(labels[place] == inputs[place + 1] for place in asked)
        assert sorted(inputs[1 : half + 1]) == sorted(inputs[half + 2 :])


def test_both_halves_have_orders_of_their_own_and_values_are_uniform():
    config = JointRecallConfig(fewest_contexts=3, most_contexts=3, fewest_keys=3, most_keys=3, values=4)
    ids = drawn(JointRecallTask(config), Cell(3, 3), 20_000).input_ids
    halves = ids[:, 1:22].reshape(-1, 3, 7), ids[:, 23:].reshape(-1, 3, 7)
    orders = [[tuple(row) for row in half[:, :, 0].tolist()] for half in halves]
    permutations = list(itertools.permutations(range(10, 13)))
    both = [6 * permutations.index(one) + permutations.index(other) for one, other in zip(*orders, strict=True)]
    assert within_sampling_error(shares(both, 36), [1 / 36] * 36, 20_000)
    # The order of the keys in a context, and in the context behind it.
    keys = [[tuple(row) for row in halves[0][:, place, 1::2].tolist()] for place in (0, 1)]
    permutations = list(itertools.permutations(range(13, 16)))
    both = [6 * permutations.index(one) + permutations.index(other) for one, other in zip(*keys, strict=True)]
    assert within_sampling_error(shares(both, 36), [1 / 36] * 36, 20_000)
    values = halves[0][:, :, 2::2].reshape(-1, 9) - 16
    assert within_sampling_error(shares(4 * values[:, 0] + values[:, 8], 16), [1 / 16] * 16, 20_000)


def test_training_mixes_all_cells_equally_and_pads_with_the_published_id():
    config = JointRecallConfig(fewest_contexts=1, most_contexts=2, fewest_keys=1, most_keys=3, values=4)
    task = JointRecallTask(config)
    batch = task.training_batch(0, 0, 6000)
    lengths = {2 * contexts * (2 * keys + 1) + 2: 1 / 6 for contexts in (1, 2) for keys in (1, 2, 3)}
    found = shares(batch.attention_mask.sum(dim=1), 64)
    assert within_sampling_error(found[list(lengths)], list(lengths.values()), 6000)
    padded = batch.attention_mask == 0
    assert padded.any() and (batch.input_ids[padded] == PADDING).all()
    assert (batch.labels[padded] == IGNORED_LABEL).all() and (batch.input_ids[~padded] != PADDING).all()


TINY = JointRecallTask.presets["tiny"].config


def test_random_answers_score_chance_and_looking_up_scores_one():
    task = JointRecallTask(TINY)
    at_chance(task.evaluate(Guesser(task.vocab_size, range(18, 26)), "test"), task, task.test_set())
    assert {task.chance(cell) for cell in task.test_set()} == {1 / 8}
    solver = Solver(task.vocab_size, lambda row: labels_of(TINY, row)[0])
    measured = overall(task.evaluate(solver, "test"))
    assert measured["accuracy"].value == measured["exact_match"].value == 1.0


def test_a_memory_that_ignores_the_context_is_no_solution():
    task = JointRecallTask(TINY)
    first_key = FIRST + TINY.most_contexts

    def last_value_of_the_key(row):
        latest = {}
        for place, token in enumerate(row[: row.index(SEPARATOR)]):
            if first_key <= token < first_key + TINY.most_keys:
                latest[token] = row[place + 1]
        return [latest.get(token, 0) for token in row]

    accuracy = overall(task.evaluate(Solver(task.vocab_size, last_value_of_the_key), "test"))["accuracy"].value
    # One context in C is the one that came last; the others agree with it by chance.
    cells = [(cell.contexts * cell.keys, 1 / cell.contexts) for cell in task.test_set()]
    expected = sum(facts * (last + (1 - last) / 8) for facts, last in cells) / sum(facts for facts, _ in cells)
    assert accuracy == pytest.approx(expected, abs=0.03)


def test_the_published_ladder_has_144_cells_of_up_to_1058_tokens():
    preset = JointRecallTask.presets["hax"]
    task = JointRecallTask(preset.config)
    assert list(task.test_set().items()) == [
        (Cell(contexts, keys), 100) for contexts in range(5, 17) for keys in range(5, 17)
    ]
    assert task.longest_sequence == 1058 and task.memory_bits(Cell(16, 16)) == 1024
    assert all(task.chance(cell) == 1 / 16 for cell in task.test_set())
    inputs = task.evaluation_samples("test", Cell(16, 16), 0, 1).input_ids
    assert np.array_equal(np.unique(inputs), [BEGIN, SEPARATOR, *range(FIRST, FIRST + 48)])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"fewest_keys": "20"}, "fewest_keys 20 is larger than most_keys 16"),
        ({"values": "1"}, "values must be from 2"),
    ],
)
def test_wrong_settings_say_what_is_wrong(changes, message):
    with pytest.raises(RequestError, match=message):
        with_settings(JointRecallConfig(), changes, "task joint-recall")


def test_the_data_is_the_one_that_was_recorded():
    """Changes only together with the task's version."""
    config = JointRecallConfig(fewest_contexts=2, most_contexts=4, fewest_keys=2, most_keys=4, values=8)
    assert data_digest(JointRecallTask(config)) == "ef7ebc0434c4e057"
