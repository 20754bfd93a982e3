"""Selectivity: sequences and their gaps, scores, and settings."""

import dataclasses
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
from hypothesis import given
from hypothesis import strategies as st
from selectivity_support import PUBLISHED, TINY, configs, few, followers, grammar_or_skip, walks

from seqbench.contracts import IGNORED_LABEL, with_settings
from seqbench.errors import RequestError
from seqbench_tasks.selectivity import SelectivityConfig, SelectivityTask
from seqbench_tasks.selectivity.ambiguity import depths, share_known_by_symbol
from seqbench_tasks.selectivity.config import NOISE_TOKENS
from seqbench_tasks.selectivity.generate import gap_lengths, state_ids, states_of
from seqbench_tasks.selectivity.grammar import grammar_of
from seqbench_tasks.selectivity.task import Gaps, rounded_down


def read(config, inputs):
    """Follow the grammar through a sequence from its beginning: a token that may not follow belongs to a gap."""
    grammar = grammar_of(config)
    assert inputs[0] == config.boundary
    state, found = grammar.boundary, [config.boundary]
    for token in inputs[1:]:
        possible = [other for other in followers(grammar, state) if grammar.emits[other] == token]
        if possible:
            [state] = possible
        found.append(int(state_ids(config, np.array(state))) if possible else IGNORED_LABEL)
    return found


@few
@given(configs(), st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_whoever_follows_the_grammar_knows_every_label_and_every_gap(config, seed, index):
    grammar_or_skip(config)
    task = SelectivityTask(config)
    for inputs, labels in rows_of(task.training_batch(seed, index, 3)):
        assert labels == read(config, inputs)
        assert sum(label != IGNORED_LABEL for label in labels) == config.sequence_symbols
        assert len(inputs) == task.longest_sequence and max(inputs + labels) < task.vocab_size


@few
@given(configs(), st.integers(0, 2**32))
def test_gaps_have_every_length_equally_often_in_an_order_of_their_own(config, seed):
    grammar_or_skip(config)
    samples = drawn(SelectivityTask(config), Gaps(config.longest_gap), 2, seed)
    expected = gap_lengths(config, config.longest_gap)
    places = config.sequence_symbols - config.symbols_before_gaps
    assert np.count_nonzero(expected) == math.floor(config.gap_share * places + 0.5)
    for labels in samples.labels:
        gaps = np.diff(np.flatnonzero(labels != IGNORED_LABEL)) - 1
        assert sorted(gaps.tolist()) == sorted(expected.tolist())
        assert not gaps[: config.symbols_before_gaps - 1].any()
    counts = np.bincount(expected[expected > 0], minlength=config.longest_gap + 1)[config.shortest_gap :]
    assert len(counts) == config.longest_gap - config.shortest_gap + 1 and counts.max() - counts.min() <= 1


def test_the_places_of_long_and_short_gaps_are_random():
    samples = drawn(SelectivityTask(TINY), Gaps(4), 2000)
    at = np.nonzero(samples.labels != IGNORED_LABEL)[1].reshape(2000, -1)
    first_gaps = at[:, 1] - at[:, 0] - 2
    expected = np.bincount(gap_lengths(TINY, 4) - 1) / 39
    assert within_sampling_error(shares(first_gaps, 4), expected, 2000)


def gap_tokens(content):
    config = dataclasses.replace(TINY, gap_content=content)
    samples = drawn(SelectivityTask(config), Gaps(4), 500)
    return config, samples.input_ids[samples.labels == IGNORED_LABEL]


def test_gaps_are_silent_or_noisy_or_made_of_symbols():
    config, tokens = gap_tokens("silence")
    assert set(tokens.tolist()) == {config.silence}
    config, tokens = gap_tokens("noise")
    noise = tokens[tokens != config.silence] - config.first_noise
    assert within_sampling_error([len(noise) / len(tokens)], [0.2], len(tokens))
    assert within_sampling_error(shares(noise, NOISE_TOKENS), [1 / NOISE_TOKENS] * NOISE_TOKENS, len(noise))
    config, tokens = gap_tokens("symbols")
    assert set(tokens.tolist()) == set(range(config.symbols + 1))


def test_state_ids_name_states_and_never_symbols_of_a_gap():
    states = np.arange(len(grammar_of(TINY).emits))
    ids = state_ids(TINY, states)
    assert states_of(TINY, ids).tolist() == states.tolist()
    gaps = {TINY.silence, *range(TINY.first_noise, TINY.first_noise + NOISE_TOKENS)}
    assert len(set(ids.tolist())) == len(states) and not gaps & set(ids.tolist())
    assert ids.max() + 1 == SelectivityTask(TINY).vocab_size


# Scores.


def test_following_the_grammar_scores_one_at_all_distances_and_gaps():
    config = dataclasses.replace(TINY, test_samples=8, test_longest_gaps=(4, 9))
    task = SelectivityTask(config)
    evaluation = task.evaluate(Solver(task.vocab_size, lambda row: read(config, row)), "test")
    accuracy = [measured for measured in evaluation.measurements if measured.metric == "accuracy"]
    assert {measured.value for measured in accuracy} == {1.0}
    kinds = [next(iter(measured.coordinates), "all") for measured in accuracy]
    assert set(kinds) == {"depth", "lookback", "longest_gap", "all"}
    for kind in ("depth", "lookback", "longest_gap"):
        assert sum(each.n for each in accuracy if next(iter(each.coordinates), "") == kind) == accuracy[-1].n
    assert [each.coordinates["longest_gap"] for each in accuracy if "longest_gap" in each.coordinates] == [4, 9]
    steps = [each.coordinates["depth"] for each in accuracy if "depth" in each.coordinates]
    assert steps == sorted(steps) and set(steps) <= {0, 1, 2, 4, 8}


def test_seeing_one_symbol_at_a_time_scores_what_is_told_below_the_table():
    config = dataclasses.replace(TINY, test_samples=2000, sequence_symbols=60)
    task = SelectivityTask(config)
    grammar = grammar_of(config)
    seen = walks(grammar, 2000, 59)
    best = {
        symbol: int(state_ids(config, np.bincount(seen[grammar.emits[seen] == symbol]).argmax()))
        for symbol in range(config.symbols + 1)
    }
    solver = Solver(task.vocab_size, lambda row: [best.get(token, 0) for token in row])
    accuracy = overall(task.evaluate(solver, "test"))["accuracy"]
    known = share_known_by_symbol(grammar, 60)
    # Labels of one sequence depend on each other.
    assert abs(accuracy.value - known) < 0.01
    assert f"at most {known:.1%} of the states" in task.notes()[0]


def test_random_states_score_chance():
    task = SelectivityTask(dataclasses.replace(TINY, test_samples=300))
    ids = state_ids(TINY, np.arange(len(task.grammar.emits))).tolist()
    at_chance(task.evaluate(Guesser(task.vocab_size, ids), "test"), task, task.test_set())


def test_distances_are_those_of_the_symbols_that_tell_a_state():
    task = SelectivityTask(TINY)
    samples = drawn(task, Gaps(4), 5)
    found = task.distances(samples)
    for row, labels in enumerate(samples.labels):
        at = np.flatnonzero(labels != IGNORED_LABEL).tolist()
        states = states_of(TINY, labels[at])
        for place, (position, depth) in enumerate(zip(at, depths(task.grammar, states[None])[0], strict=True)):
            assert found["depth"][row, position] == rounded_down(int(depth))
            assert found["lookback"][row, position] == rounded_down(position - at[place - depth])
        assert set(np.delete(found["depth"][row], at).tolist()) == {-1}
    assert [rounded_down(number) for number in (0, 1, 2, 3, 4, 7, 8, 40)] == [0, 1, 2, 2, 4, 4, 8, 32]


def test_the_four_published_tasks_are_presets_at_full_size_and_small():
    for name in ("task-1", "task-2", "task-3", "task-4"):
        preset = SelectivityTask.presets[name]
        assert preset.figure == f"SelectivBench {name.replace('-', ' ')} (arXiv 2601.12598)"
        config = preset.config
        assert (config.symbols, config.start_states, config.transition_density) == (52, 4, 0.4)
        assert (config.minimum_depth, config.maximum_depth, config.sequence_symbols) == (20, 40, 200)
        assert preset.trainer["steps"] * preset.trainer["batch_size"] == 200_000
        small = SelectivityTask.presets[name.replace("task-1", "tiny").replace("task-", "tiny-task-")].config
        assert small.gap_content == config.gap_content
    assert (PUBLISHED.shortest_gap, PUBLISHED.longest_gap) == (1, 10)
    third = SelectivityTask.presets["task-3"].config
    assert (third.gap_content, third.gap_share, third.symbols_before_gaps) == ("symbols", 0.1, 50)
    assert SelectivityTask.presets["task-2"].config.noise_probability == 0.2
    assert SelectivityTask.presets["task-4"].config.test_longest_gaps == (10, 20, 50, 100)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"symbols": "53"}, "symbols must be from 3 to 52"),
        ({"symbols": "8"}, "take 8 symbols that words are entered from"),
        ({"minimum_depth": "50"}, "minimum_depth 50 is larger than maximum_depth 40"),
        ({"shortest_gap": "11"}, "shortest_gap 11 is larger than longest_gap 10"),
        ({"test_longest_gaps": "10,10"}, "test_longest_gaps names 10 more than once"),
        ({"shortest_gap": "5", "test_longest_gaps": "4"}, "test_longest_gaps names 4, which is less than"),
        ({"symbols_before_gaps": "201"}, "more than the 200 symbols"),
        ({"transition_density": "0.01", "symbols": "20"}, "of 20 symbols is 0"),
        ({"start_states": "40", "symbols": "30"}, "start_states 40 is more than symbols 30"),
        ({"gap_content": "music"}, "gap_content must be one of silence, noise, symbols"),
    ],
)
def test_wrong_settings_say_what_is_wrong(changes, message):
    with pytest.raises(RequestError, match=message):
        with_settings(SelectivityConfig(), changes, "task selectivity")


def test_a_density_at_which_nothing_hangs_together_is_refused():
    config = SelectivityConfig(symbols=52, transition_density=0.02)
    with pytest.raises(RequestError, match="raise transition_density"):
        grammar_of(config)


@pytest.mark.parametrize(
    "preset, digest",
    [
        ("tiny", "c168516f5344fe77"),
        ("tiny-task-2", "9c556e3e5c502228"),
        ("tiny-task-3", "8a013b281c317254"),
        ("task-1", "707c4c81faf15347"),
    ],
)
def test_the_data_is_the_one_that_was_recorded(preset, digest):
    """Changes only together with the task's version."""
    assert data_digest(SelectivityTask(SelectivityTask.presets[preset].config)) == digest
