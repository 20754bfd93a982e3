"""Selectivity: the grammar against its description, and ambiguity by exact subset construction."""

import dataclasses
import functools
import itertools
import math

import numpy as np
from generated_support import shares, within_sampling_error
from hypothesis import given, settings
from hypothesis import strategies as st
from selectivity_support import PUBLISHED, TINY, configs, few, followers, grammar_or_skip, walks

from seqbench_tasks.selectivity.ambiguity import depths
from seqbench_tasks.selectivity.grammar import grammar_of


@few
@given(configs())
def test_a_state_and_the_next_symbol_decide_the_next_state(config):
    grammar = grammar_or_skip(config)
    for state in range(len(grammar.emits)):
        symbols = [grammar.emits[other] for other in followers(grammar, state)]
        assert len(set(symbols)) == len(symbols)


@few
@given(configs())
def test_plain_states_go_on_with_the_configured_share_of_symbols(config):
    grammar = grammar_or_skip(config)
    entries = {int(entry): word for word in grammar.words for entry in word.entries}
    assert len(entries) == config.ambiguous_words * config.word_copies
    for state in range(config.symbols):
        plain = {other for other in followers(grammar, state) if other <= config.boundary}
        assert len(plain) == config.successors == math.floor(config.transition_density * config.symbols + 0.5)
        assert (len(followers(grammar, state)) > len(plain)) == (state in entries)
    starts = followers(grammar, grammar.boundary)
    assert len(starts) == config.start_states and all(start < config.symbols for start in starts)
    assert grammar.emits[: config.symbols + 1].tolist() == list(range(config.symbols + 1))


@few
@given(configs())
def test_the_copies_of_a_word_are_spelled_alike_and_differ_in_what_is_around_them(config):
    grammar = grammar_or_skip(config)
    assert len(grammar.words) == config.ambiguous_words
    for word in grammar.words:
        assert config.minimum_depth <= len(word.letters) <= config.maximum_depth
        assert not set(word.letters.tolist()) & {int(entry) for each in grammar.words for entry in each.entries}
        for entry, path in zip(word.entries.tolist(), word.paths.tolist(), strict=True):
            assert grammar.emits[path].tolist() == word.letters.tolist()
            assert path[0] in followers(grammar, entry)
            assert all(followers(grammar, here) == {there} for here, there in itertools.pairwise(path))
        assert len({frozenset(followers(grammar, path[-1])) for path in word.paths}) == config.word_copies


@few
@given(configs())
def test_every_state_is_reached_and_strings_can_always_end(config):
    grammar = grammar_or_skip(config)
    size = len(grammar.emits)
    back = {state: {other for other in range(size) if state in followers(grammar, other)} for state in range(size)}
    for step in (functools.partial(followers, grammar), back.__getitem__):
        reached, edge = {grammar.boundary}, {grammar.boundary}
        while edge:
            edge = set().union(*map(step, edge)) - reached
            reached |= edge
        assert reached == set(range(size))


def test_an_entry_begins_its_word_every_other_time_and_other_followers_are_equally_likely():
    grammar = grammar_of(TINY)
    states = walks(grammar, 200, 500)
    before, after = states[:, :-1], states[:, 1:]
    for word in grammar.words:
        for entry, path in zip(word.entries, word.paths, strict=True):
            came = after[before == entry]
            assert within_sampling_error([(came == path[0]).mean()], [1 / 2], len(came))
    plain = min(set(range(TINY.symbols)) - {int(entry) for word in grammar.words for entry in word.entries})
    came = after[before == plain]
    expected = np.zeros(len(grammar.emits))
    expected[list(followers(grammar, plain))] = 1 / TINY.successors
    assert within_sampling_error(shares(came, len(grammar.emits)), expected, len(came))


def test_the_grammar_is_a_function_of_its_seed_and_its_own_settings():
    again = grammar_of(dataclasses.replace(TINY, test_samples=3, gap_content="noise", longest_gap=3))
    assert np.array_equal(again.options, grammar_of(TINY).options)
    other = grammar_of(dataclasses.replace(TINY, grammar_seed=1))
    assert other.options.shape != again.options.shape or not np.array_equal(other.options, again.options)


# How many past symbols a state is known by.


def depth_by_subsets(grammar, symbols, state):
    """Read the last k + 1 symbols from every state at once: the smallest k that leaves one state, which must be it."""
    for past in range(len(symbols)):
        possible = {each for each in range(len(grammar.emits)) if grammar.emits[each] == symbols[-past - 1]}
        for symbol in symbols[len(symbols) - past :]:
            possible = {
                other for each in possible for other in followers(grammar, each) if grammar.emits[other] == symbol
            }
        assert state in possible
        if len(possible) == 1:
            return past
    raise AssertionError("the symbols since '#' tell every state")


@settings(max_examples=15)
@given(configs(), st.integers(0, 2**32))
def test_depth_is_what_the_subset_construction_finds(config, seed):
    grammar = grammar_or_skip(config)
    [states] = walks(grammar, 1, 40, seed)
    symbols = grammar.emits[states].tolist()
    found = depths(grammar, states[None])[0].tolist()
    assert found == [depth_by_subsets(grammar, symbols[: place + 1], states[place]) for place in range(len(states))]


def longest_confusion(grammar):
    """The most symbols that two paths can write alike and end in different states; endless if a pair comes back.

    Two paths that are in the same state and write the same symbol stay together: all pairs on the way differ.
    """
    size = len(grammar.emits)
    before = {state: [other for other in range(size) if state in followers(grammar, other)] for state in range(size)}
    known, open_pairs = {}, set()

    def written(pair):
        if pair not in known:
            assert pair not in open_pairs, "a pair of states that can be confused for ever"
            open_pairs.add(pair)
            earlier = [
                (one, other)
                for one in before[pair[0]]
                for other in before[pair[1]]
                if one != other and grammar.emits[one] == grammar.emits[other]
            ]
            known[pair] = 1 + max(map(written, earlier), default=0)
        return known[pair]

    pairs = [(a, b) for a in range(size) for b in range(size) if a != b and grammar.emits[a] == grammar.emits[b]]
    return max(map(written, pairs))


@settings(max_examples=15)
@given(configs())
def test_the_depth_of_a_grammar_is_its_longest_word(config):
    grammar = grammar_or_skip(config)
    assert longest_confusion(grammar) == max(len(word.letters) for word in grammar.words)


def test_the_published_grammar_is_ambiguous_over_20_to_40_symbols():
    grammar = grammar_of(PUBLISHED)
    assert longest_confusion(grammar) == max(len(word.letters) for word in grammar.words) <= 40
    assert min(len(word.letters) for word in grammar.words) >= 20
    found = depths(grammar, walks(grammar, 20, 1000))
    assert found.max() == longest_confusion(grammar)
    # The grammar is no name for one rare event: half of all states take ten past symbols or more.
    assert (found >= 10).mean() > 0.4
