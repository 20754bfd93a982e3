"""Address-update: episodes against their definition, and a score for those who answer by the old rule."""

import dataclasses
import itertools

import pytest
from generated_support import Guesser, Solver, data_digest, drawn, overall, rows_of, shares, within_sampling_error
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.contracts import IGNORED_LABEL, with_settings
from seqbench.errors import RequestError
from seqbench_tasks.address_update import AddressUpdateConfig, AddressUpdateTask
from seqbench_tasks.address_update.task import Filler

ADD, AFFINE = "ADD10", "AFFINE10"
seeds, indices = st.integers(0, 2**64 - 1), st.integers(0, 2**40)

# The definition of the families.
RULES = {
    ADD: [lambda x, k=k: (x + k) % 10 for k in range(1, 10)],
    AFFINE: [lambda x, a=a, b=b: (a * x + b) % 10 for a in range(2, 10) for b in range(10)],
}


@st.composite
def configs(draw):
    families = draw(st.sampled_from([(ADD,), (AFFINE,), (ADD, AFFINE), (AFFINE, ADD)]))
    return AddressUpdateConfig(
        families=families,
        addresses=draw(st.integers(1, 5)),
        demonstrations=draw(st.integers(6 if AFFINE in families else 1, 9)),
        training_fillers=(draw(st.integers(0, 9)),),
    )


def consistent_answers(family, shown, x):
    """What the rules of a family that explain all demonstrations answer to x."""
    return {rule(x) for rule in RULES[family] if all(rule(seen) == answer for seen, answer in shown)}


def segments_of(config, row):
    """Address, family, demonstrations and question of both segments, read by the definition."""
    names = {config.first_family: ADD, config.first_family + 1: AFFINE}
    boundary = row.index(config.boundary)
    for tokens in (row[:boundary], row[boundary + 1 :]):
        count = 5 * config.demonstrations
        demonstrations = [tokens[start : start + 5] for start in range(0, count, 5)]
        filler, question = tokens[count:-4], tokens[-4:]
        assert set(filler) <= {config.filler}
        [head] = {(*quoted[:2], quoted[3]) for quoted in [*demonstrations, question]}
        assert 10 <= head[0] < 10 + config.addresses and head[2] == config.delimiter
        yield head[0], names[head[1]], [(quoted[2], quoted[4]) for quoted in demonstrations], question[2]


@settings(max_examples=16)
@given(configs(), seeds, indices)
def test_demonstrations_decide_both_answers(config, seed, index):
    for inputs, labels in rows_of(AddressUpdateTask(config).training_batch(seed, index, 4)):
        first, second = segments_of(config, inputs)
        answers = [consistent_answers(family, shown, x) for _, family, shown, x in (first, second)]
        assert all(len(found) == 1 for found in answers) and answers[0] != answers[1]
        half = len(inputs) // 2
        expected = {half - 1: answers[0].pop(), 2 * half: answers[1].pop()}
        assert labels == [expected.get(place, IGNORED_LABEL) for place in range(len(inputs))]


@settings(max_examples=15)
@given(configs(), seeds, indices)
def test_both_segments_ask_for_the_same_digit_under_the_same_address(config, seed, index):
    [filler] = config.training_fillers
    task = AddressUpdateTask(config)
    for inputs, _ in rows_of(task.training_batch(seed, index, 4)):
        (address, family, shown, x), (other, other_family, other_shown, other_x) = segments_of(config, inputs)
        assert address == other and x == other_x and {family, other_family} <= set(config.families)
        for demonstrations in (shown, other_shown):
            digits = [digit for digit, _ in demonstrations]
            assert len({*digits, x}) == config.demonstrations + 1 and {*digits, x} <= set(range(10))
        assert len(inputs) == 2 * (5 * config.demonstrations + filler + 4) + 1 == task.longest_sequence
        assert max(inputs) < task.vocab_size


@given(configs(), st.integers(0, 2**30))
def test_lookback_reaches_the_last_demonstrated_answer(config, index):
    task = AddressUpdateTask(config)
    for difficulty in task.training_mixture():
        [(inputs, _)] = rows_of(task.evaluation_samples("test", difficulty, index, index + 1).batch)
        _, (_, _, shown, _) = segments_of(config, inputs)
        last = len(inputs) - 1 - task.lookback(difficulty)
        assert inputs[last] == shown[-1][1] and inputs[last - 1] == config.delimiter


def test_too_few_demonstrations_are_those_that_can_leave_the_rule_open():
    """Six different digits always decide an affine rule; five do not, such as the even ones."""
    for count, always in ((6, True), (5, False)):
        open_answers = 0
        for shown in itertools.combinations(range(10), count):
            for x in set(range(10)) - set(shown):
                seen = {}
                for rule in RULES[AFFINE]:
                    seen.setdefault(tuple(map(rule, shown)), set()).add(rule(x))
                open_answers += any(len(answers) > 1 for answers in seen.values())
        assert (open_answers == 0) == always


def test_addresses_families_rules_and_answers_are_evenly_drawn():
    task = AddressUpdateTask(AddressUpdateConfig())
    count = 20_000
    samples = drawn(task, Filler(0), count)
    ids, config = samples.input_ids, task.config
    half = ids.shape[1] // 2
    assert within_sampling_error(shares(ids[:, 0] - 10, 4), [1 / 4] * 4, count)
    families = 2 * (ids[:, 1] - config.first_family) + ids[:, half + 2] - config.first_family
    assert within_sampling_error(shares(families, 4), [1 / 4] * 4, count)
    assert within_sampling_error(shares(ids[:, half - 2], 10), [1 / 10] * 10, count)
    assert within_sampling_error(shares(ids[:, 2], 10), [1 / 10] * 10, count)
    added = (ids[:, 4] - ids[:, 2])[ids[:, 1] == config.first_family] % 10
    assert within_sampling_error(shares(added, 10), [0] + [1 / 9] * 9, len(added))
    first, second = samples.labels[:, half - 1], samples.labels[:, -1]
    assert (first != second).all()
    for answers in (first, second):
        assert within_sampling_error(shares(answers, 10), [1 / 10] * 10, count)


TINY = AddressUpdateTask.presets["tiny-affine"].config
TASK = AddressUpdateTask(dataclasses.replace(TINY, test_samples=100))


def answering(choose):
    """Answers each question by the demonstrations of the segment that `choose` picks for it."""

    def solve(row):
        segments = list(segments_of(TINY, row))
        answers = [0] * len(row)
        for number, place in enumerate((len(row) // 2 - 1, len(row) - 1)):
            _, family, shown, _ = segments[choose(number)]
            answers[place] = min(consistent_answers(family, shown, segments[number][3]))
        return answers

    return Solver(TASK.vocab_size, solve)


@pytest.mark.parametrize(
    "choose, updated, stale, first",
    [(lambda number: number, 1.0, 0.0, 1.0), (lambda number: 0, 0.0, 1.0, 1.0), (lambda number: 1, 1.0, 0.0, 0.0)],
    ids=["each rule in its time", "always the old rule", "always the new rule"],
)
def test_stale_answers_are_those_of_the_old_rule(choose, updated, stale, first):
    measured = overall(TASK.evaluate(answering(choose), "test"))
    assert measured["updated_accuracy"].value == updated
    assert measured["stale_rate"].value == stale
    assert measured["first_accuracy"].value == first
    assert measured["updated_accuracy"].n == measured["stale_rate"].n == 100 * len(TINY.test_fillers)
    assert measured["add10_accuracy"].value == measured["affine10_accuracy"].value == updated
    assert measured["add10_accuracy"].n + measured["affine10_accuracy"].n == measured["updated_accuracy"].n


def test_random_answers_score_chance_on_both_rules():
    task = AddressUpdateTask(dataclasses.replace(TINY, test_samples=600))
    evaluation = task.evaluate(Guesser(task.vocab_size, range(10)), "test")
    for metric in ("updated_accuracy", "stale_rate", "first_accuracy"):
        measured = overall(evaluation)[metric]
        assert within_sampling_error(measured.value, 1 / 10, measured.n)
    assert task.chance(Filler(0)) == 1 / 10
    scores, weights = zip(*map(task.item_score, evaluation.items), strict=True)
    assert sum(scores) / sum(weights) == overall(evaluation)["updated_accuracy"].value


def test_one_family_is_not_measured_apart():
    task = AddressUpdateTask(AddressUpdateTask.presets["tiny"].config)
    measured = overall(task.evaluate(Guesser(task.vocab_size, range(10)), "validation"))
    assert "updated_accuracy" in measured and not {"add10_accuracy", "affine10_accuracy"} & set(measured)


def test_published_scores_stand_beside_the_published_settings_only():
    paper = AddressUpdateTask(AddressUpdateTask.presets["paper"].config)
    assert paper.config.demonstrations == 8 and paper.config.addresses == 4 and paper.config.test_samples == 1000
    assert AddressUpdateTask.presets["paper"].trainer["batch_size"] == 256
    scores = {(score.model, score.metric): score.value for score in paper.published()}
    assert scores["PMNet 29.95M, Consolidator", "updated_accuracy"] == 0.8702
    assert scores["PMNet 29.95M, Consolidator without routing", "updated_accuracy"] == 0.4438
    assert {metric for _, metric in scores} <= {"updated_accuracy", "add10_accuracy", "affine10_accuracy"}
    assert len(AddressUpdateTask(dataclasses.replace(paper.config, test_samples=50)).published()) == len(scores)
    assert TASK.published() == []


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"demonstrations": "5"}, "5 demonstrations do not always decide a rule of AFFINE10; set demonstrations to 6"),
        ({"demonstrations": "10"}, "demonstrations must be from 1 to 9"),
        ({"families": "ADD10,ADD10"}, "families names ADD10 more than once"),
        ({"families": "SUB10"}, "families must be one of ADD10, AFFINE10"),
        ({"test_fillers": "4,4"}, "test_fillers names 4 more than once"),
    ],
)
def test_wrong_settings_say_what_is_wrong(changes, message):
    with pytest.raises(RequestError, match=message):
        with_settings(AddressUpdateConfig(), changes, "task address-update")
    few = with_settings(AddressUpdateConfig(), {"families": "ADD10", "demonstrations": "1"}, "task address-update")
    assert few.demonstrations == 1


@pytest.mark.parametrize("preset, digest", [("tiny", "0252a49822b8c8da"), ("tiny-affine", "01c94cf3a94126d4")])
def test_the_data_is_the_one_that_was_recorded(preset, digest):
    """Changes only together with the task's version."""
    assert data_digest(AddressUpdateTask(AddressUpdateTask.presets[preset].config)) == digest
