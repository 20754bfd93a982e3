"""Repeat after me: the generator against the definition on text, and what its scores mean."""

import dataclasses
import math
import re

import pytest
from generated_support import Guesser, Solver, data_digest, drawn, overall, rows_of, shares, within_sampling_error
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.contracts import IGNORED_LABEL, with_settings
from seqbench.errors import RequestError
from seqbench_tasks.repeat_after_me import RepeatAfterMeConfig, RepeatAfterMeTask
from seqbench_tasks.repeat_after_me.task import Context, Length

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VARIANTS = ("copy", "prefix-ngram", "suffix-ngram", "duplicate-ngram")
seeds, indices = st.integers(0, 2**64 - 1), st.integers(0, 2**40)


def as_text(config, ids):
    signs = LETTERS[: config.alphabet_size] + "$|."
    return "".join("-" if token == IGNORED_LABEL else signs[token] for token in ids)


def example_of(config, variant, text):
    """The definition: the prompt that a text begins with, and the answer to it; None when the prompt is cut off."""
    fields = text[1:].split("|")
    if len(fields) < (3 if variant == "prefix-ngram" else 2):
        return None
    if variant in ("copy", "duplicate-ngram"):
        return f"${fields[0]}|", fields[0]
    if variant == "prefix-ngram":
        ngram, string = fields[:2]
        prompt = f"${ngram}|{string}|"
    else:
        string, ngram = fields[0], fields[1][: config.ngram]
        prompt = f"${string}|{ngram}"
    if len(ngram) < config.ngram:
        return None
    return prompt, string[string.index(ngram) + config.ngram :][: config.answer_length]


def labels_of(config, inputs):
    """The labels of a training context: each answer and its end sign, unless they are cut off."""
    found = ""
    for text in re.findall(r"\$[^$]*", inputs):
        example = example_of(config, config.variant, text)
        # The last token of a context is only predicted.
        if example is None or len(text) < len("".join(example)):
            found += "-" * len(text)
            continue
        prompt, answer = example
        assert text in (f"{prompt}{answer}", f"{prompt}{answer}.")
        found += "-" * (len(prompt) - 1) + answer + "."
        found += "-" * (len(text) - len(prompt) - len(answer))
    return found


@st.composite
def configs(draw, variants=VARIANTS):
    ngram, answer = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    shortest = draw(st.integers(max(2 * ngram, ngram + answer), 12))
    longest = draw(st.integers(shortest, 16))
    config = {
        "variant": draw(st.sampled_from(variants)),
        "alphabet_size": draw(st.sampled_from([2, 3, 26])),
        "ngram": ngram,
        "answer_length": answer,
        "minimum_length": shortest,
        "maximum_length": longest,
        "test_lengths": (shortest, longest + 5),
    }
    room = RepeatAfterMeConfig(**config, context_length=1000).example_length(longest)
    return RepeatAfterMeConfig(**config, context_length=draw(st.integers(room, room + 90)))


@settings(max_examples=30)
@given(configs(), seeds, indices)
def test_contexts_hold_strings_and_the_answers_to_them(config, seed, index):
    task = RepeatAfterMeTask(config)
    for inputs, labels in rows_of(task.training_batch(seed, index, 3)):
        assert len(inputs) == config.context_length - 1 == task.longest_sequence
        inputs = as_text(config, inputs)
        strings = re.findall(r"\$[^$]*", inputs)
        assert "".join(strings) == inputs
        lengths = [len(text[1:].split("|")[config.variant == "prefix-ngram"]) for text in strings[:-1]]
        assert all(config.minimum_length <= length <= config.maximum_length for length in lengths)
        assert as_text(config, labels) == labels_of(config, inputs)


@settings(max_examples=20)
@given(configs(), st.sampled_from(["validation", "test"]), st.integers(0, 2**30))
def test_evaluation_strings_stand_alone_and_ask_for_letters_only(config, split, index):
    task = RepeatAfterMeTask(config)
    for difficulty in task.test_set():
        samples = task.evaluation_samples(split, difficulty, index, index + 2)
        for inputs, labels in rows_of(samples.batch):
            inputs, labels = as_text(config, inputs), as_text(config, labels)
            prompt, answer = example_of(config, config.variant, inputs)
            assert inputs == prompt + answer[:-1]
            assert labels == "-" * (len(prompt) - 1) + answer
            assert max(map(len, re.findall("[a-z]+", inputs))) == difficulty.length


@given(configs(variants=["copy", "duplicate-ngram"]), st.integers(0, 2**30))
def test_lookback_is_the_distance_to_the_letter_that_is_named(config, index):
    task = RepeatAfterMeTask(config)
    for difficulty in task.test_set():
        for inputs, labels in rows_of(task.evaluation_samples("test", difficulty, index, index + 1).batch):
            for place, label in enumerate(labels):
                assert label in (IGNORED_LABEL, inputs[place - task.lookback(difficulty)])


@settings(max_examples=15)
@given(configs(variants=["duplicate-ngram"]), st.integers(0, 2**30))
def test_duplicate_ngrams_stand_in_test_strings_only(config, index):
    task, n = RepeatAfterMeTask(config), config.ngram
    copy = RepeatAfterMeTask(dataclasses.replace(config, variant="copy"))
    for difficulty in task.test_set():
        samples = task.evaluation_samples("test", difficulty, index, index + 1)
        string = as_text(config, samples.input_ids[0, 1 : 1 + difficulty.length])
        assert any(string[place : place + n] in string[place + n :] for place in range(len(string) - n))
    # Before rows that hold test strings are drawn again: those of the two variants differ.
    (left, _), (right, _) = task._drawn_batch(1, index, 3), copy._drawn_batch(1, index, 3)
    assert left.input_ids.equal(right.input_ids) and left.labels.equal(right.labels)


def test_letters_lengths_and_places_are_uniform():
    config = RepeatAfterMeConfig(
        alphabet_size=4, minimum_length=3, maximum_length=6, context_length=16, test_lengths=(8,), ngram=2
    )
    task = RepeatAfterMeTask(config)
    inputs = drawn(task, Context(), 20_000).input_ids
    lengths = (inputs == config.bar).argmax(axis=1) - 1
    assert within_sampling_error(shares(lengths - 3, 4), [1 / 4] * 4, 20_000)
    assert within_sampling_error(shares(inputs[:, 1:4], 4), [1 / 4] * 4, 60_000)
    # Letters so many that hardly an n-gram occurs twice: places 0 to 3 leave room for n-gram and answer.
    config = dataclasses.replace(config, variant="suffix-ngram", alphabet_size=4000, minimum_length=5)
    samples = drawn(RepeatAfterMeTask(config), Length(8), 20_000)
    string, asked = samples.input_ids[:, 1:9], samples.input_ids[:, [10]]
    assert within_sampling_error(shares((string == asked).argmax(axis=1), 8), [1 / 4] * 4 + [0] * 4, 20_000)


def copier(config, remembered=None):
    """Repeats as much of a test string as it remembers, and says "a" for the rest."""

    def solve(row):
        text = as_text(config, row)
        prompt, answer = example_of(config, config.variant, text)
        known = answer if remembered is None else answer[:remembered].ljust(len(answer), "a")
        return [0] * (len(prompt) - 1) + [LETTERS.index(letter) for letter in known]

    return Solver(config.vocab_size, solve)


@pytest.mark.parametrize("variant", VARIANTS)
def test_looking_up_scores_one_and_guessing_scores_chance(variant):
    config = dataclasses.replace(RepeatAfterMeTask.presets["tiny"].config, variant=variant, test_samples=200)
    task = RepeatAfterMeTask(config)
    exact = overall(task.evaluate(copier(config), "test"))
    assert exact["accuracy"].value == exact["exact_match"].value == 1.0
    guessed = overall(task.evaluate(Guesser(config.vocab_size, range(26)), "test"))["accuracy"]
    assert within_sampling_error(guessed.value, task.chance(Length(5)), guessed.n) and task.chance(Length(5)) == 1 / 26


def test_a_memory_below_the_bound_errs_on_more_than_half_of_the_strings():
    """arXiv 2402.01032: fewer than length x log2(alphabet) - 1 bits; one letter of two takes one bit."""
    config = RepeatAfterMeConfig(
        alphabet_size=2, minimum_length=2, maximum_length=4, context_length=30, test_lengths=(6,)
    )
    task = RepeatAfterMeTask(dataclasses.replace(config, test_samples=2000))
    assert task.memory_bits(Length(6)) == 6
    for remembered in (5, 4, 2):
        exact = overall(task.evaluate(copier(config, remembered), "test"))["exact_match"]
        assert within_sampling_error(exact.value, 2.0 ** (remembered - 6), exact.n)
    assert "fewer than length x 1.00 - 1 bits errs on more than half" in task.notes()[0]
    assert "5 bits at 6 letters (arXiv 2402.01032)" in task.notes()[0]


def test_bits_to_remember_are_those_of_the_string():
    task = RepeatAfterMeTask(RepeatAfterMeConfig())
    assert task.memory_bits(Length(100)) == pytest.approx(100 * math.log2(26))
    twice = RepeatAfterMeTask(RepeatAfterMeConfig(variant="duplicate-ngram", ngram=2))
    assert twice.memory_bits(Length(100)) == pytest.approx(98 * math.log2(26))
    assert RepeatAfterMeTask(RepeatAfterMeConfig(variant="prefix-ngram")).memory_bits(Length(100)) is None


def test_published_settings():
    preset = RepeatAfterMeTask.presets["paper"]
    config = preset.config
    assert (config.minimum_length, config.maximum_length, config.context_length) == (5, 20, 220)
    assert config.alphabet_size == 26 and max(config.test_lengths) > config.maximum_length
    assert (preset.trainer["learning_rate"], preset.trainer["warmup_steps"], preset.trainer["weight_decay"]) == (
        *(1e-5, 100),
        0.1,
    )
    assert {preset.config.variant for preset in RepeatAfterMeTask.presets.values()} == set(VARIANTS)
    assert all("2402.01032" in preset.figure for name, preset in RepeatAfterMeTask.presets.items() if "paper" in name)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"minimum_length": "30"}, "minimum_length 30 is larger than maximum_length 20"),
        ({"context_length": "40"}, "does not hold a string of 20 letters and its answer; set it to 43 or more"),
        ({"variant": "prefix-ngram", "ngram": "3"}, "needs strings of 6 letters or more, and minimum_length or"),
        ({"variant": "duplicate-ngram", "ngram": "4"}, "needs strings of 8 letters or more"),
        ({"variant": "palindrome"}, "variant must be one of copy"),
        ({"test_lengths": "5,5"}, "test_lengths names 5 more than once"),
        ({"alphabet_size": "1"}, "alphabet_size must be from 2"),
    ],
)
def test_wrong_settings_say_what_is_wrong(changes, message):
    with pytest.raises(RequestError, match=message):
        with_settings(RepeatAfterMeConfig(), changes, "task repeat-after-me")


@pytest.mark.parametrize(
    "preset, digest",
    [
        ("tiny", "66761fffbedf3c9e"),
        ("tiny-prefix-ngram", "9e37c77c700021d4"),
        ("tiny-suffix-ngram", "f14ba6d3a48a935c"),
        ("tiny-duplicate-ngram", "5e0817a4065fecab"),
    ],
)
def test_the_data_is_the_one_that_was_recorded(preset, digest):
    """Changes only together with the task's version."""
    assert data_digest(RepeatAfterMeTask(RepeatAfterMeTask.presets[preset].config)) == digest
