"""Latest-value: streams of writes and queries against a dictionary, and scores for those who keep old values."""

import dataclasses
import itertools

import numpy as np
import pytest
from generated_support import Guesser, Solver, data_digest, drawn, overall, rows_of, shares, within_sampling_error
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.contracts import IGNORED_LABEL, with_settings
from seqbench.errors import RequestError
from seqbench_tasks.latest_value import LatestValueConfig, LatestValueTask
from seqbench_tasks.latest_value.task import Corridors

seeds, indices = st.integers(0, 2**64 - 1), st.integers(0, 2**40)


@st.composite
def configs(draw, **fixed):
    keys = draw(st.integers(1, 5))
    uniform = draw(st.booleans())
    return LatestValueConfig(
        **{
            "keys": keys,
            "values": draw(st.integers(2, 6)),
            "rewrites": draw(st.integers(1, keys)),
            "queries": draw(st.integers(1, keys)),
            "training_rounds": draw(st.integers(1, 6)),
            "test_rounds": draw(st.integers(1, 9)),
            "training_corridors": (draw(st.integers(int(uniform), 7)),),
            "test_corridors": (draw(st.integers(int(uniform), 7)),),
            "uniform_corridors": uniform,
            **fixed,
        }
    )


def rounds_of(config, row):
    """The definition: (writes, corridor, queries) of each round, and the corridor tokens behind the last query."""
    is_key, rounds, place = range(config.values, config.values + config.keys), [], 0
    while place < len(row) and row[place] in is_key:
        writes, queries, start = [], [], place
        while row[place] in is_key:
            writes.append((row[place], row[place + 1]))
            place += 2
        start = place
        while row[place] == config.corridor:
            place += 1
        corridor = place - start
        while place < len(row) and row[place] == config.query:
            queries.append((row[place + 1], place + 1))
            place += 2
        rounds.append((writes, corridor, queries))
    assert set(row[place:]) <= {config.corridor}
    return rounds, len(row) - place


def histories(config, row):
    """Position of each query -> all values that its key ever had, the latest last."""
    found, memory = {}, {}
    for writes, _, queries in rounds_of(config, row)[0]:
        for key, value in writes:
            memory.setdefault(key, []).append(value)
        for key, place in queries:
            found[place] = list(memory[key])
    return found


@settings(max_examples=20)
@given(configs(), seeds, indices)
def test_labels_are_what_a_dictionary_holds(config, seed, index):
    for inputs, labels in rows_of(LatestValueTask(config).training_batch(seed, index, 4)):
        latest = {place: values[-1] for place, values in histories(config, inputs).items()}
        assert labels == [latest.get(place, IGNORED_LABEL) for place in range(len(inputs))]


@settings(max_examples=20)
@given(configs(), seeds, indices)
def test_rounds_write_wait_and_ask(config, seed, index):
    task = LatestValueTask(config)
    [corridor] = config.training_corridors
    for inputs, _ in rows_of(task.training_batch(seed, index, 4)):
        rounds, rest = rounds_of(config, inputs)
        assert len(rounds) == config.training_rounds and len(inputs) == task.longest_sequence
        for number, (writes, waited, queries) in enumerate(rounds):
            assert len({key for key, _ in writes}) == len(writes) == (config.rewrites if number else config.keys)
            assert len({key for key, _ in queries}) == len(queries) == config.queries
            assert 1 <= waited <= corridor if config.uniform_corridors else waited == corridor
        assert rest == sum(corridor - waited for _, waited, _ in rounds)
        assert max(inputs) < task.vocab_size


@settings(max_examples=15)
@given(configs(), st.integers(0, 2**30))
def test_stale_answers_and_rewrites_are_those_of_the_history(config, index):
    task = LatestValueTask(config)
    for difficulty in task.test_set():
        samples = task.evaluation_samples("test", difficulty, index, index + 2)
        for row, (inputs, _) in enumerate(rows_of(samples.batch)):
            past = histories(config, inputs)
            stale = {
                place: values[-2] for place, values in past.items() if len(values) > 1 and values[-2] != values[-1]
            }
            answered = samples.answers["stale_rate"][row].tolist()
            assert answered == [stale.get(place, IGNORED_LABEL) for place in range(len(inputs))]
            spans = {
                "0": range(1),
                "1": range(1, 2),
                "2_to_3": range(2, 4),
                "4_to_7": range(4, 8),
                "8_to_15": range(8, 16),
            }
            for name, span in spans.items():
                found = samples.answers.get(f"accuracy_after_{name}")
                expected = [place for place, values in past.items() if len(values) - 1 in span]
                assert expected == ([] if found is None else np.flatnonzero(found[row] != IGNORED_LABEL).tolist())


@given(configs(keys=1, rewrites=1, queries=1, uniform_corridors=False), seeds, indices)
def test_lookback_of_a_single_key_reaches_its_latest_value(config, seed, index):
    task = LatestValueTask(config)
    [difficulty] = task.training_mixture()
    for inputs, labels in rows_of(task.training_batch(seed, index, 3)):
        for place, label in enumerate(labels):
            assert label in (IGNORED_LABEL, inputs[place - task.lookback(difficulty)])
    assert LatestValueTask(LatestValueConfig()).lookback(difficulty) is None


def test_keys_values_and_corridors_are_uniform():
    config = LatestValueConfig(
        keys=3,
        values=4,
        rewrites=1,
        queries=1,
        training_rounds=2,
        uniform_corridors=True,
        training_corridors=(5,),
        test_corridors=(5,),
    )
    count = 20_000
    ids = drawn(LatestValueTask(config), Corridors(5, 2), count).input_ids
    first_query = (ids == config.query).argmax(axis=1)
    rows = np.arange(count)
    order = [tuple(keys) for keys in (ids[:, 0:6:2] - 4).tolist()]
    orders = list(itertools.permutations(range(3)))
    assert within_sampling_error(shares([orders.index(keys) for keys in order], 6), [1 / 6] * 6, count)
    assert within_sampling_error(shares(ids[:, 1:6:2], 4), [1 / 4] * 4, 3 * count)
    assert within_sampling_error(shares(first_query - 6, 6), [0] + [1 / 5] * 5, count)
    asked_and_rewritten = 3 * (ids[rows, first_query + 1] - 4) + ids[rows, first_query + 2] - 4
    assert within_sampling_error(shares(asked_and_rewritten, 9), [1 / 9] * 9, count)
    assert within_sampling_error(shares(ids[rows, first_query + 3], 4), [1 / 4] * 4, count)


CUBES = dataclasses.replace(LatestValueTask.presets["color-cubes"].config, test_samples=60)


def remembering(config, choose):
    """Answers with the value of the history that `choose` picks."""

    def solve(row):
        past = histories(config, row)
        return [choose(past[place]) if place in past else 0 for place in range(len(row))]

    return Solver(config.vocab_size, solve)


def test_a_dictionary_scores_one_and_older_values_are_stale():
    task = LatestValueTask(CUBES)
    latest = overall(task.evaluate(remembering(CUBES, lambda values: values[-1]), "test"))
    assert latest["accuracy"].value == latest["exact_match"].value == 1.0 and latest["stale_rate"].value == 0.0
    before = overall(task.evaluate(remembering(CUBES, lambda values: values[-2:][0]), "test"))
    assert before["stale_rate"].value == 1.0 and before["accuracy_after_0"].value == 1.0
    # What is left is the chance that a rewrite left the value as it was.
    assert before["accuracy_after_1"].value == pytest.approx(1 / 8, abs=0.04)
    first = overall(task.evaluate(remembering(CUBES, lambda values: values[0]), "test"))
    assert first["accuracy_after_0"].value == 1.0 and first["accuracy_after_4_to_7"].value < 0.25


def test_random_answers_score_chance():
    for preset in ("tiny", "t-maze-uniform"):
        config = dataclasses.replace(LatestValueTask.presets[preset].config, test_samples=300)
        task = LatestValueTask(config)
        measured = overall(task.evaluate(Guesser(config.vocab_size, range(config.values)), "test"))
        for metric in ("accuracy", "stale_rate", "accuracy_after_0", "accuracy_after_4_to_7"):
            assert within_sampling_error(measured[metric].value, 1 / config.values, measured[metric].n), metric
        assert task.chance(Corridors(8, 8)) == 1 / config.values


def test_memory_is_a_value_for_every_key():
    assert LatestValueTask(LatestValueConfig(keys=4, values=8)).memory_bits(Corridors(0, 1)) == 12


def test_the_maze_is_one_binary_cue_for_each_corridor():
    for preset in ("t-maze-fixed", "t-maze-uniform"):
        config = LatestValueTask.presets[preset].config
        assert (config.keys, config.values, config.rewrites, config.queries) == (1, 2, 1, 1)
        assert "2601.15086" in LatestValueTask.presets[preset].figure
        for inputs, _ in rows_of(LatestValueTask(config).training_batch(0, 0, 2)):
            assert all(len(writes) == len(queries) == 1 for writes, _, queries in rounds_of(config, inputs)[0])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"rewrites": "5"}, r"rewrites 5 is more than there are keys \(4\)"),
        ({"queries": "5"}, r"queries 5 is more than there are keys \(4\)"),
        (
            {"uniform_corridors": "yes"},
            "draws lengths from 1 to the corridor, and training_corridors or test_corridors",
        ),
        ({"test_corridors": "3,3"}, "test_corridors names 3 more than once"),
        ({"values": "1"}, "values must be from 2"),
    ],
)
def test_wrong_settings_say_what_is_wrong(changes, message):
    with pytest.raises(RequestError, match=message):
        with_settings(LatestValueConfig(), changes, "task latest-value")


@pytest.mark.parametrize(
    "preset, digest",
    [
        ("tiny", "978af4ca5b1e9fdf"),
        ("t-maze-fixed", "1d57eb80d8785088"),
        ("t-maze-uniform", "6078842ea0952534"),
        ("color-cubes", "f1b0c5a21e452258"),
    ],
)
def test_the_data_is_the_one_that_was_recorded(preset, digest):
    """Changes only together with the task's version."""
    assert data_digest(LatestValueTask(LatestValueTask.presets[preset].config)) == digest
