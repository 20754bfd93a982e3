"""Needle: haystacks against their definition, chains resolved step by step, and sequences beyond one call."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from generated_support import Guesser, Solver, data_digest, drawn, overall, rows_of, shares, within_sampling_error
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.contracts import IGNORED_LABEL, PredictedChunk, with_settings
from seqbench.errors import RequestError
from seqbench_tasks.needle import NeedleConfig, NeedleTask
from seqbench_tasks.needle.task import Length
from seqbench_tasks.synthetic import task as kit
from seqbench_tasks.synthetic.long import CHUNK_TOKENS

seeds, indices = st.integers(0, 2**64 - 1), st.integers(0, 2**40)


@st.composite
def configs(draw, variants=("retrieval", "variable-tracking")):
    variant = draw(st.sampled_from(variants))
    needles, hops = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    names = needles * (hops + 1) if variant == "variable-tracking" else needles
    config = {
        "variant": variant,
        "needles": needles,
        "hops": hops,
        "queries": draw(st.integers(1, needles)) if variant == "retrieval" else 1,
        "keys": names + draw(st.integers(0, 5)),
        "values": max(2, needles + draw(st.integers(0, 5))),
        "noise": draw(st.integers(1, 5)),
    }
    shortest = NeedleConfig(**config, training_length=1000, test_lengths=(1000,)).shortest_length
    lengths = st.integers(shortest, shortest + 30)
    return NeedleConfig(**config, training_length=draw(lengths), test_lengths=(draw(lengths),))


def needles_of(config, context):
    """The definition: (what stands left, what stands right, where) of each needle; all else is noise."""
    found, place = [], 0
    while place < len(context):
        if context[place] == config.needle:
            found.append((context[place + 1], context[place + 2], place))
            place += 3
        else:
            assert config.first_noise <= context[place] < config.needle
            place += 1
    return found


def retrieved(config, row):
    """Position -> the value of the key that is asked for there, and the place of its needle."""
    start = row.index(config.question)
    values = {key: (value, place) for key, value, place in needles_of(config, row[:start])}
    assert len(values) == config.needles
    keys = range(config.first_key, config.first_noise)
    assert all(key in keys and value < config.values for key, (value, _) in values.items())
    questions = row[start:]
    assert all(questions[place] == config.question for place in range(0, len(questions), 3))
    return {start + place: values[questions[place]] for place in range(1, len(questions), 3)}


def tracked(config, row):
    """Position -> the variable to be named there: those that got the value, each behind the one it was made from."""
    start = row.index(config.question)
    assigned = {name: (source, place) for name, source, place in needles_of(config, row[:start])}
    assert len(assigned) == config.needles * (config.hops + 1)

    def steps_from(name, value):
        """Assignments between a value and a variable that got it; None if it got another."""
        source, _ = assigned[name]
        if source < config.values:
            return 0 if source == value else None
        before = steps_from(source, value)
        return None if before is None else before + 1

    value = row[start + 1]
    chain = {steps: name for name in assigned if (steps := steps_from(name, value)) is not None}
    assert sorted(chain) == list(range(config.hops + 1))
    for steps in range(1, config.hops + 1):
        assert assigned[chain[steps]][0] == chain[steps - 1], "assigned from the one before"
        assert assigned[chain[steps]][1] > assigned[chain[steps - 1]][1], "and behind it"
    return {start + 1 + steps: (name, assigned[name][1]) for steps, name in chain.items()}


def answers_of(config, row):
    return (tracked if config.variant == "variable-tracking" else retrieved)(config, row)


@settings(max_examples=30)
@given(configs(), seeds, indices)
def test_labels_are_values_of_keys_and_chains_that_were_followed(config, seed, index):
    task = NeedleTask(config)
    for inputs, labels in rows_of(task.training_batch(seed, index, 4)):
        assert len(inputs) == config.training_length == task.longest_sequence
        answers = {place: answer for place, (answer, _) in answers_of(config, inputs).items()}
        assert labels == [answers.get(place, IGNORED_LABEL) for place in range(len(inputs))]
        # Every answer but the last is read before the next question.
        places = sorted(answers)
        assert places[-1] == len(inputs) - 1 and all(inputs[place + 1] == answers[place] for place in places[:-1])
        assert max(inputs) < task.vocab_size


@settings(max_examples=20)
@given(configs(), st.integers(0, 2**30))
def test_quarters_are_those_of_the_context(config, index):
    task = NeedleTask(config)
    [difficulty] = task.test_set()
    samples = task.evaluation_samples("test", difficulty, index, index + 2)
    for row, (inputs, _) in enumerate(rows_of(samples.batch)):
        context = inputs.index(config.question)
        for quarter in range(1, 5):
            expected = {
                place: answer
                for place, (answer, hidden) in answers_of(config, inputs).items()
                if (quarter - 1) * context <= 4 * hidden < quarter * context
            }
            found = samples.answers[f"recall_quarter_{quarter}"][row]
            assert found.tolist() == [expected.get(place, IGNORED_LABEL) for place in range(len(inputs))]


def test_needles_stand_anywhere_and_everything_is_uniform():
    config = NeedleConfig(keys=5, values=4, noise=3, training_length=10, test_lengths=(10,))
    count = 20_000
    ids = drawn(NeedleTask(config), Length(10), count).input_ids
    places = (ids == config.needle).argmax(axis=1)
    assert within_sampling_error(shares(places, 8), [1 / 6] * 6 + [0] * 2, count)
    pairs = np.take_along_axis(ids, places[:, None] + [1, 2], axis=1) - [config.first_key, 0]
    assert within_sampling_error(shares(4 * pairs[:, 0] + pairs[:, 1], 20), [1 / 20] * 20, count)
    noise = ids[(ids >= config.first_noise) & (ids < config.needle)] - config.first_noise
    assert within_sampling_error(shares(noise, 3), [1 / 3] * 3, noise.size)
    # Of two needles the one that is asked for is as often the first as the second.
    two = drawn(NeedleTask(dataclasses.replace(config, needles=2)), Length(10), count).input_ids
    first = np.take_along_axis(two, (two == config.needle).argmax(axis=1)[:, None] + 1, axis=1)[:, 0]
    assert within_sampling_error((first == two[:, -1]).mean(), 1 / 2, count)


def solver(config):
    def solve(row):
        answers = answers_of(config, row)
        return [answers[place][0] if place in answers else 0 for place in range(len(row))]

    return Solver(config.vocab_size, solve)


TINY = ("tiny", "tiny-multi-key", "tiny-multi-query", "tiny-variable-tracking")


@pytest.mark.parametrize("preset", TINY)
def test_searching_scores_one_and_guessing_scores_chance(preset):
    config = dataclasses.replace(NeedleTask.presets[preset].config, test_lengths=(64, 128), test_samples=500)
    task = NeedleTask(config)
    found = overall(task.evaluate(solver(config), "test"))
    assert found["recall"].value == found["exact_match"].value == found["recall_quarter_3"].value == 1.0
    answers = range(16) if config.variant == "retrieval" else range(config.first_key, config.first_noise)
    guessed = overall(task.evaluate(Guesser(config.vocab_size, answers), "test"))["recall"]
    assert within_sampling_error(guessed.value, task.chance(Length(64)), guessed.n)
    assert guessed.n == 1000 * (config.hops + 1 if config.variant == "variable-tracking" else config.queries)


def test_any_value_of_the_context_scores_what_the_notes_say():
    config = dataclasses.replace(NeedleTask.presets["tiny-multi-key"].config, test_lengths=(64,), test_samples=2000)
    task = NeedleTask(config)
    last = Solver(config.vocab_size, lambda row: [needles_of(config, row[: row.index(config.question)])[-1][1]] * 64)
    recall = overall(task.evaluate(last, "test"))["recall"]
    # And the values of other needles are sometimes the same.
    assert within_sampling_error(recall.value, 1 / 4 + 3 / 4 / 16, recall.n)
    assert any("any of the 4 values in the context scores 25.0%" in line for line in task.notes())


def test_bits_to_remember():
    assert NeedleTask(NeedleConfig(needles=4, values=16)).memory_bits(Length(64)) == 16
    tracking = NeedleConfig(variant="variable-tracking", hops=1, needles=1, keys=5)
    assert NeedleTask(tracking).memory_bits(Length(64)) == pytest.approx(math.log2(5 * 4))


class Reader:
    """Answers by what it has read so far, whole or in chunks; tells how it was asked."""

    attention_reach = None

    def __init__(self, config, carries_state=True):
        self.config, self.carries_state = config, carries_state
        self.calls, self.chunks = [], []

    def _answers(self, row):
        known, answers, place = {}, [0] * len(row), 0
        while place < len(row):
            if row[place] == self.config.needle:
                known[row[place + 1]] = row[place + 2]
                place += 3
                continue
            if place and row[place - 1] == self.config.question:
                answers[place] = known[row[place]]
            place += 1
        return answers

    def _logits(self, ids):
        answers = torch.tensor([self._answers(row) for row in ids.tolist()])
        return torch.nn.functional.one_hot(answers, self.config.vocab_size).float()

    def logits(self, input_ids, attention_mask=None):
        self.calls.append(input_ids.numel())
        return self._logits(input_ids)

    def stream(self, input_ids, chunk_length):
        self.chunks.append(min(chunk_length, input_ids.shape[1]) * input_ids.shape[0])
        logits = self._logits(input_ids)
        for start in range(0, input_ids.shape[1], chunk_length):
            chunk = slice(start, start + chunk_length)
            yield PredictedChunk(start, input_ids[:, chunk], logits[:, chunk])


LONG = NeedleConfig(needles=3, queries=3, training_length=32, test_lengths=(32, 64, 200), test_samples=5)


@pytest.mark.parametrize("chunk", [1, 7, 64, 199, 4096])
def test_sequences_beyond_one_call_are_read_in_chunks_with_the_state(chunk, monkeypatch):
    monkeypatch.setattr(kit, "TOKENS_PER_CALL", 150)
    monkeypatch.setattr("seqbench_tasks.synthetic.long.CHUNK_TOKENS", chunk)
    reader = Reader(LONG)
    evaluation = NeedleTask(LONG).evaluate(reader, "test")
    assert overall(evaluation)["recall"].value == 1.0 and overall(evaluation)["recall"].n == 45
    assert reader.calls == [4 * 32, 32, 2 * 64, 2 * 64, 64] and reader.chunks == [min(chunk, 200)] * 5
    protocols = {(item["length"], item["protocol"]) for item in evaluation.items}
    assert protocols == {(32, "one call"), (64, "one call"), (200, "carried state")}


def test_without_a_state_they_are_read_in_one_call(monkeypatch):
    monkeypatch.setattr(kit, "TOKENS_PER_CALL", 150)
    reader = Reader(LONG, carries_state=False)
    evaluation = NeedleTask(LONG).evaluate(reader, "test")
    assert overall(evaluation)["recall"].value == 1.0 and not reader.chunks and reader.calls[-5:] == [200] * 5
    assert {item["protocol"] for item in evaluation.items} == {"one call"}


@pytest.mark.parametrize("limit", [40, 150, 600])
def test_the_largest_call_is_declared(limit, monkeypatch):
    monkeypatch.setattr(kit, "TOKENS_PER_CALL", limit)
    monkeypatch.setattr("seqbench_tasks.needle.task.CHUNK_TOKENS", 30)
    monkeypatch.setattr("seqbench_tasks.synthetic.long.CHUNK_TOKENS", 30)
    task, reader = NeedleTask(LONG), Reader(LONG)
    for split in ("validation", "test"):
        task.evaluate(reader, split)
    assert task.tokens_per_evaluation_call == max(reader.calls + reader.chunks)


def test_tests_go_to_64_times_the_training_length():
    for name, preset in NeedleTask.presets.items():
        config, task = preset.config, NeedleTask(preset.config)
        assert max(config.test_lengths) == 64 * config.training_length
        assert list(task.training_mixture()) == [Length(config.training_length)] == list(task.validation_set())
        assert ("RULER" in preset.figure) == name.startswith("ruler")
        assert task.tokens_per_evaluation_call <= kit.TOKENS_PER_CALL
    ruler = NeedleTask(NeedleTask.presets["ruler-variable-tracking"].config)
    assert (ruler.config.needles, ruler.config.hops, ruler.config.test_samples) == (1, 4, 500)
    assert {4096 * 2**power for power in range(6)} <= set(ruler.config.test_lengths)
    assert any("in chunks of 2,048 with the state carried" in line for line in ruler.notes()) and CHUNK_TOKENS == 2048
    assert not any("chunks" in line for line in NeedleTask(NeedleTask.presets["tiny"].config).notes())


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"queries": "2"}, r"queries 2 is more than there are needles \(1\)"),
        (
            {"variant": "variable-tracking", "queries": "2", "needles": "2"},
            "asks for one chain: set queries to 1, not 2",
        ),
        ({"needles": "17"}, "17 different keys are needed, and keys is 16"),
        (
            {"variant": "variable-tracking", "needles": "3", "values": "2"},
            "3 chains need as many values, and values is 2",
        ),
        ({"test_lengths": "64,4"}, "4 tokens do not hold needles and questions: .* have to be 5 or more"),
        ({"test_lengths": "64,64"}, "test_lengths names 64 more than once"),
        ({"variant": "multi-key"}, "variant must be one of retrieval, variable-tracking"),
    ],
)
def test_wrong_settings_say_what_is_wrong(changes, message):
    with pytest.raises(RequestError, match=message):
        with_settings(NeedleConfig(), changes, "task needle")


@pytest.mark.parametrize(
    "preset, digest",
    [
        ("tiny", "91fb2d28abad18be"),
        ("tiny-multi-key", "d4af917e2bbafd9e"),
        ("tiny-multi-query", "06dd593217d88e86"),
        ("tiny-variable-tracking", "98ba3a7a45dc5e0c"),
    ],
)
def test_the_data_is_the_one_that_was_recorded(preset, digest):
    """Changes only together with the task's version."""
    config = dataclasses.replace(NeedleTask.presets[preset].config, test_lengths=(64, 1024))
    assert data_digest(NeedleTask(config)) == digest
