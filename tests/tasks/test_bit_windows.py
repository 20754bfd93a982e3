"""Parity and delayed match: the bit stream against its definition, and what their scores mean."""

import dataclasses
import itertools

import numpy as np
import pytest
from generated_support import Guesser, Solver, data_digest, drawn, overall, rows_of, shares, within_sampling_error
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.contracts import IGNORED_LABEL, with_settings
from seqbench.errors import RequestError
from seqbench_tasks.delayed_match import DelayedMatchTask
from seqbench_tasks.parity import ParityTask
from seqbench_tasks.synthetic.bit_windows import BitString, BitWindowConfig

# What each task answers to the last N bits.
DEFINITIONS = {
    ParityTask: lambda bits: sum(bits) % 2,
    DelayedMatchTask: lambda bits: int(bits[0] == bits[-1]),
}
both = pytest.mark.parametrize("task_class", DEFINITIONS)
LADDER = BitWindowConfig(windows=(2, 3, 5, 8))


def answers(task_class, bits, window, labels="every"):
    """The definition, one position after the other."""
    last = len(bits) - 1
    asked = [place >= window - 1 and (labels == "every" or place == last) for place in range(len(bits))]
    return [
        DEFINITIONS[task_class](bits[place - window + 1 : place + 1]) if wanted else IGNORED_LABEL
        for place, wanted in enumerate(asked)
    ]


def window_of(config, inputs):
    [rung] = {token // 2 for token in inputs}
    return config.windows[rung]


@both
@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(2, 12), min_size=1, max_size=4, unique=True).map(sorted),
    st.sampled_from(["every", "end"]),
    st.sampled_from([1, 25]),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**40),
)
def test_every_string_names_its_window_and_is_answered_by_definition(task_class, windows, labels, least, seed, index):
    config = BitWindowConfig(
        windows=tuple(windows), labels=labels, least_length=least, test_samples=20, validation_samples=5
    )
    task = task_class(config)
    assert task.vocab_size == 2 * len(windows) and task.longest_sequence == max(4 * windows[-1] + 1, least)
    for inputs, expected in rows_of(task.training_batch(seed, index, 6)):
        window = window_of(config, inputs)
        assert window + 2 <= len(inputs) <= max(4 * window + 1, least)
        assert expected == answers(task_class, [token % 2 for token in inputs], window, labels)


@both
def test_the_first_rows_of_a_batch_do_not_depend_on_its_size(task_class):
    task = task_class(LADDER)
    assert list(rows_of(task.training_batch(3, 5, 9)))[:4] == list(rows_of(task.training_batch(3, 5, 4)))


def test_bits_are_even_coins_and_windows_and_lengths_equally_likely():
    task = ParityTask(BitWindowConfig(windows=(2, 5), least_length=9))
    rows = [inputs for index in range(60) for inputs, _ in rows_of(task.training_batch(0, index, 100))]
    assert within_sampling_error(shares([inputs[0] // 2 for inputs in rows], 2), [1 / 2] * 2, len(rows))
    lengths = [len(inputs) - 7 for inputs in rows if inputs[0] >= 2]
    assert within_sampling_error(shares(lengths, 15), [1 / 15] * 15, len(lengths))
    samples = drawn(task, BitString(5, 21), 4000)
    assert within_sampling_error(shares(samples.input_ids - 2, 2), [1 / 2] * 2, samples.input_ids.size)


@both
def test_both_answers_are_as_likely_whatever_the_bits_behind_the_first(task_class):
    """So that nobody who does not reach back to the first bit of the window is better than chance: the bound."""
    task, window = task_class(LADDER), 8
    bits = np.array(list(itertools.product((0, 1), repeat=window)))
    found = task.answers(bits, window)[:, 0]
    assert (found[: 2 ** (window - 1)] + found[2 ** (window - 1) :] == 1).all()
    assert {task.chance(rung) for rung in task.test_set()} == {0.5}
    assert [task.lookback(rung) for rung in task.test_set()] == [1, 2, 4, 7]


@both
@pytest.mark.parametrize("window", [2, 3, 6])
def test_no_two_contents_of_the_last_bits_but_one_can_share_a_state(task_class, window):
    """Any two pasts of N - 1 bits go on with the same bits to different answers: N - 1 bits have to be carried."""
    task = task_class(BitWindowConfig(windows=(window,)))
    pasts = np.array(list(itertools.product((0, 1), repeat=window - 1)))
    futures = np.pad(pasts, ((0, 0), (0, window - 1)))
    found = {tuple(row) for row in task.answers(futures, window).tolist()}
    assert len(found) == 2 ** (window - 1) == 2 ** task.memory_bits(BitString(window, 20))
    at_end = dataclasses.replace(task.config, labels="end")
    assert task_class(at_end).memory_bits(BitString(window, 20)) is None


def solver(task, known):
    """Answers by definition in the windows `known`, and wrongly in the others."""

    def solve(row):
        window = window_of(task.config, row)
        right = answers(type(task), [token % 2 for token in row], window)
        return right if window in known else [answer if answer == IGNORED_LABEL else 1 - answer for answer in right]

    return Solver(task.vocab_size, solve)


@both
@pytest.mark.parametrize("known, largest", [((2, 3, 5, 8), 8), ((2, 3), 3), ((2, 3, 8), 3), ((3, 5, 8), 0), ((), 0)])
def test_the_largest_window_solved_has_no_unsolved_one_below_it(task_class, known, largest):
    task = task_class(dataclasses.replace(LADDER, test_samples=20))
    evaluation = task.evaluate(solver(task, known), "test")
    assert overall(evaluation)["largest_window_solved"].value == largest
    by_window = {
        measured.coordinates["window"]: measured.value
        for measured in evaluation.measurements
        if measured.metric == "accuracy" and measured.coordinates
    }
    assert by_window == {window: float(window in known) for window in LADDER.windows}


@both
def test_random_answers_score_one_half_and_solve_nothing(task_class):
    task = task_class(dataclasses.replace(LADDER, test_samples=1000))
    scored = overall(task.evaluate(Guesser(task.vocab_size, (0, 1)), "test"))
    assert scored["largest_window_solved"].value == 0
    assert abs(scored["accuracy"].value - 0.5) < 4 * (0.25 / scored["accuracy"].n) ** 0.5


@both
def test_strings_of_the_test_set_can_be_longer_than_those_of_training(task_class):
    config = dataclasses.replace(LADDER, test_length_multiple=16, test_samples=5)
    evaluation = task_class(config).evaluate(Guesser(8, (0, 1)), "test")
    assert [(item["window"], item["length"]) for item in evaluation.items[::5]] == [(2, 33), (3, 49), (5, 81), (8, 129)]
    assert task_class(config).longest_sequence == 33


def test_strings_about_small_windows_are_not_so_short_that_training_would_see_them_all():
    config = dataclasses.replace(LADDER, windows=(2, 5, 6, 7))
    assert [config.longest(window) for window in config.windows] == [25, 25, 25, 29]
    assert [config.tested(window) for window in config.windows] == [25, 25, 25, 29]
    longer = dataclasses.replace(config, test_length_multiple=8)
    assert [longer.tested(window) for window in config.windows] == [25, 41, 49, 57]
    lengths = {rung.length for rung in ParityTask(config).training_mixture() if rung.window == 2}
    assert lengths == set(range(4, 26))
    # As published.
    published = ParityTask.presets["multi-head"].config
    assert [published.longest(window) for window in published.windows] == [4 * n + 1 for n in published.windows]


def test_the_curriculum_adds_one_window_after_the_other():
    config = dataclasses.replace(LADDER, curriculum_batches=30)
    seen = [config.windows_at(index) for index in range(40)]
    assert [len(windows) for windows in seen] == [1] * 10 + [2] * 10 + [3] * 10 + [4] * 10
    assert all(windows == LADDER.windows[: len(windows)] for windows in seen)
    task = ParityTask(config)
    for index in (0, 15, 25, 35):
        drawn_windows = {window_of(config, inputs) for inputs, _ in rows_of(task.training_batch(0, index, 64))}
        assert drawn_windows == set(seen[index])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"windows": "4,3"}, "windows must ascend, not 4, 3"),
        ({"windows": "2,2"}, "windows names 2 more than once"),
        ({"windows": "1"}, "windows must be from 2"),
        ({"windows": "5", "curriculum_batches": "10"}, "has nothing to add: windows names 5 alone"),
        ({"labels": "all"}, "labels must be one of every, end"),
    ],
)
def test_wrong_settings_say_what_is_wrong(changes, message):
    with pytest.raises(RequestError, match=message):
        with_settings(BitWindowConfig(), changes, "task parity")


@pytest.mark.parametrize(
    "task_class, digest", [(ParityTask, "7b4d95c643b1293a"), (DelayedMatchTask, "cb56a04b91e4ee29")]
)
def test_the_data_is_the_one_that_was_recorded(task_class, digest):
    """Changes only together with the task's version."""
    assert data_digest(task_class(LADDER)) == digest
