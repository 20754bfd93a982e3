"""The kit of generated tasks: what draws are, how batches and evaluation sets are made of them, what scores mean."""

import dataclasses
import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from generated_support import Solver, draws, overall, rows_of, shares, within_sampling_error
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from seqbench.contracts import IGNORED_LABEL, TaskPreset
from seqbench.errors import RequestError
from seqbench.plugins.registry import TASK_GROUP, announced, find_task
from seqbench_tasks.streams import SymbolStream, below
from seqbench_tasks.synthetic import Difficulty, Names, Samples, SyntheticConfig, SyntheticTask, require_ladder
from seqbench_tasks.synthetic import task as kit
from seqbench_tasks.synthetic.score import score

MANY = 30_000


def test_draws_are_uniform():
    one = draws(MANY, 40)
    assert within_sampling_error(shares(one.below(7, 2, 2), 7), [1 / 7] * 7, 4 * MANY)
    assert within_sampling_error(one.events(0.3, 4).mean(), 0.3, 4 * MANY)
    orders = [tuple(row) for row in one.permutations(4).tolist()]
    expected = list(itertools.permutations(range(4)))
    assert within_sampling_error(shares([expected.index(order) for order in orders], 24), [1 / 24] * 24, MANY)
    chosen = one.distinct(5, 3)
    found = shares(25 * chosen[:, 0] + 5 * chosen[:, 1] + chosen[:, 2], 125)
    possible = [len(set(triple)) == 3 for triple in itertools.product(range(5), repeat=3)]
    assert within_sampling_error(found, np.array(possible) / 60, MANY)
    assert within_sampling_error(shares(one.weighted([1, 0, 3, 4], 2), 4), [1 / 8, 0, 3 / 8, 1 / 2], 2 * MANY)


def test_weighted_draws_without_repeats_take_one_after_another():
    weights = np.array([1, 2, 5, 8])
    chosen = draws(MANY, 2).weighted_distinct(weights.tolist(), 2)
    law = weights / weights.sum()
    both = [[p * q / (1 - p) * (first != second) for second, q in enumerate(law)] for first, p in enumerate(law)]
    assert within_sampling_error(shares(4 * chosen[:, 0] + chosen[:, 1], 16), np.ravel(both), MANY)
    assert (np.sort(draws(50, 4).weighted_distinct([5, 1, 1, 2], 4), axis=1) == np.arange(4)).all()


def test_all_numbers_below_a_bound_can_be_drawn_without_repeats():
    assert (np.sort(draws(50, 9).distinct(9, 9), axis=1) == np.arange(9)).all()


@given(st.integers(1, 6), st.integers(0, 5), st.integers(0, 2**63))
def test_a_row_of_draws_depends_on_its_own_numbers_alone(count, row, seed):
    row %= count
    together, alone = draws(count, 60, seed), draws(count, 60, seed)
    alone._numbers, alone.count = alone._numbers[row : row + 1], 1
    for draw in (
        lambda some: some.below(9, 2, 3),
        lambda some: some.events(0.5, 4),
        lambda some: some.permutations(2, 4),
        lambda some: some.distinct(20, 6),
        lambda some: some.weighted([3, 1, 2], 5),
        lambda some: some.weighted_distinct([3, 1, 2, 9], 3),
    ):
        assert np.array_equal(draw(together)[row], draw(alone)[0])


def test_draws_are_the_ones_that_were_recorded():
    """Changes only together with the data version of the streams."""
    one = draws(2, 40, seed=5)
    assert one.below(100, 3).tolist() == RECORDED[0]
    assert one.permutations(5).tolist() == RECORDED[1]
    assert one.distinct(50, 4).tolist() == RECORDED[2]
    assert one.weighted_distinct([1, 10, 100], 2).tolist() == RECORDED[3]


def test_bounds_may_differ_from_sample_to_sample():
    numbers = np.array([[0, 2**32 - 1], [0, 2**32 - 1]], dtype=np.uint64)
    assert below(numbers, np.array([[3], [9]])).tolist() == [[0, 2], [0, 8]]


def test_impossible_draws_are_refused():
    with pytest.raises(ValueError, match="no 4 different numbers below 3"):
        draws(1, 9).distinct(3, 4)
    with pytest.raises(ValueError, match="no 3 different places among 2"):
        draws(1, 9).weighted_distinct([1, 1], 3)
    with pytest.raises(ValueError, match="weights sum to 4294967296"):
        draws(1, 9).weighted([2**31, 2**31], 1)


def test_shared_streams_are_apart_from_all_splits():
    streams = [SymbolStream(split, 3, 4).draw(4).tolist() for split in ("training", "validation", "test", "shared")]
    assert len({tuple(numbers) for numbers in streams}) == 4


@dataclass(frozen=True)
class Length(Difficulty):
    length: int


class Echo(SyntheticTask[SyntheticConfig, Length]):
    """Name the symbol that stood two tokens ago; the symbol before that is the stale answer."""

    name = "echo"
    summary = "name the symbol of two tokens ago"
    version = "1"
    config_class = SyntheticConfig
    presets = {"tiny": TaskPreset(SyntheticConfig(), "tests")}  # noqa: RUF012
    primary_coordinate = "length"
    vocab_size = 9
    mixed = False

    @property
    def mixes_rows(self):
        return self.mixed

    @property
    def padding(self):
        return 8

    def training_mixture(self):
        return {Length(4): 1, Length(6): 3}

    def test_set(self):
        return {Length(4): self.config.test_samples, Length(9): 5}

    def samples(self, difficulty, draws):
        input_ids = draws.below(8, difficulty.length)
        labels, stale = np.full_like(input_ids, IGNORED_LABEL), np.full_like(input_ids, IGNORED_LABEL)
        labels[:, 2:], stale[:, 3:] = input_ids[:, :-2], input_ids[:, :-3]
        return Samples(input_ids, labels, {"stale_rate": stale})

    def chance(self, difficulty):
        return 1 / 8


def echo_task() -> Echo:
    return Echo(SyntheticConfig(validation_samples=4, test_samples=30))


def test_one_difficulty_a_batch_in_proportion_to_the_weights():
    task = echo_task()
    batches = [task.training_batch(1, index, 2) for index in range(800)]
    assert all(batch.attention_mask is None for batch in batches)
    found = shares([batch.input_ids.shape[1] for batch in batches], 7)
    assert within_sampling_error(found[[4, 6]], [1 / 4, 3 / 4], 800)
    assert task.longest_sequence == 6


def test_rows_of_their_own_difficulty_are_padded_and_masked(monkeypatch):
    monkeypatch.setattr(Echo, "mixed", True)
    batch = echo_task().training_batch(1, 0, 1000)
    lengths = batch.attention_mask.sum(dim=1)
    assert within_sampling_error(shares(lengths, 7)[[4, 6]], [1 / 4, 3 / 4], 1000)
    assert (batch.attention_mask == (torch.arange(6) < lengths[:, None])).all()
    assert (batch.input_ids[batch.attention_mask == 0] == 8).all() and batch.tokens == lengths.sum()
    for inputs, labels in rows_of(batch):
        assert labels == [IGNORED_LABEL] * 2 + inputs[:-2]
    # What decided on the length decides nothing else.
    for length in (4, 6):
        first = batch.input_ids[lengths == length, 0]
        assert within_sampling_error(shares(first, 8), [1 / 8] * 8, len(first))


@pytest.mark.parametrize("mixed", [False, True])
def test_a_row_is_the_same_in_a_batch_of_any_size(mixed, monkeypatch):
    monkeypatch.setattr(Echo, "mixed", mixed)
    small, large = (list(rows_of(echo_task().training_batch(2, 3, size))) for size in (5, 40))
    assert small == large[:5]


def test_a_curriculum_is_a_function_of_the_batch_index(monkeypatch):
    monkeypatch.setattr(Echo, "training_mixture_at", lambda self, index: {Length(4 + 2 * (index >= 10)): 1})
    task = echo_task()
    assert [task.training_batch(0, index, 1).input_ids.shape[1] for index in (9, 10, 0)] == [4, 6, 4]
    assert task.longest_sequence == 6


def test_evaluation_samples_do_not_depend_on_how_they_are_cut():
    task = echo_task()
    whole = task.evaluation_samples("test", Length(9), 0, 5).input_ids
    assert np.array_equal(whole[2:4], task.evaluation_samples("test", Length(9), 2, 4).input_ids)
    other = task.evaluation_samples("validation", Length(9), 0, 5).input_ids
    assert len({tuple(row) for row in np.concatenate((whole, other)).tolist()}) == 10


def echo(steps: int):
    return lambda row: [0] * steps + row[: len(row) - steps]


def test_scores_by_difficulty_and_over_all_labels():
    task = echo_task()
    evaluation = task.evaluate(Solver(9, echo(2)), "test")
    assert [dict(measured.coordinates) for measured in evaluation.measurements] == [
        *([{"length": 4}] * 4 + [{"length": 9}] * 4 + [{}] * 4)
    ]
    counts = {(m.metric, m.coordinates.get("length")): (m.value, m.n) for m in evaluation.measurements}
    assert counts["accuracy", 4] == (1.0, 60) and counts["accuracy", 9] == (1.0, 35)
    assert counts["accuracy", None] == (1.0, 95) and counts["exact_match", None] == (1.0, 35)
    assert counts["loss", None][0] == pytest.approx(0, abs=1e-6) and counts["stale_rate", None][1] == 30 + 5 * 6
    assert [item["index"] for item in evaluation.items] == list(range(35))
    item = dict(evaluation.items[0])
    assert item.pop("loss") == pytest.approx(0, abs=1e-6) and item.pop("stale_rate_named") in (0, 1)
    assert item == {"index": 0, "length": 4, "correct": 2, "total": 2, "exact": True, "stale_rate_asked": 1}


def test_answers_count_a_particular_mistake():
    found = overall(Echo(SyntheticConfig(test_samples=500)).evaluate(Solver(9, echo(3)), "test"))
    assert found["stale_rate"].value == 1.0 and found["stale_rate"].unit == "fraction"
    chance = found["accuracy"]
    assert abs(chance.value - 1 / 8) < 4 * (7 / 64 / chance.n) ** 0.5


def test_an_answer_that_nothing_asks_for_is_not_measured(monkeypatch):
    monkeypatch.setattr(Echo, "test_set", lambda self: {Length(3): 4, Length(5): 4})
    evaluation = echo_task().evaluate(Solver(9, echo(2)), "test")
    places = [dict(m.coordinates) for m in evaluation.measurements if m.metric == "stale_rate"]
    assert places == [{"length": 5}, {}]


def test_item_scores_make_the_primary_figure():
    task = echo_task()
    evaluation = task.evaluate(Solver(9, lambda row: [place % 8 for place in range(len(row))]), "test")
    scores, weights = zip(*map(task.item_score, evaluation.items), strict=True)
    weighted = sum(score * weight for score, weight in zip(scores, weights, strict=True)) / sum(weights)
    assert weighted == pytest.approx(overall(evaluation)["accuracy"].value) and 0 < weighted < 1


@pytest.mark.parametrize("budget", [1, 20, 10**6])
def test_results_do_not_depend_on_the_token_budget_and_calls_keep_to_it(budget, monkeypatch):
    expected = echo_task().evaluate(Solver(9, echo(1)), "test")
    monkeypatch.setattr(kit, "TOKENS_PER_CALL", budget)
    task, tokens = echo_task(), []
    solver = Solver(9, echo(1))
    logits = solver.logits
    solver.logits = lambda ids: tokens.append(ids.numel()) or logits(ids)
    assert task.evaluate(solver, "test") == expected
    assert max(tokens) == task.tokens_per_evaluation_call <= max(budget, 9)


def test_other_splits_are_refused():
    with pytest.raises(ValueError, match="'training'"):
        echo_task().evaluate(Solver(9, echo(2)), "training")


def scored(logits: Tensor, **answers) -> list[dict]:
    labels = np.full(logits.shape[:2], 1, dtype=np.int64)
    return score(logits, Samples(np.zeros_like(labels), labels, answers), Names())


def test_logits_that_are_not_finite_name_nothing():
    logits = torch.zeros(1, 4, 3)
    logits[..., 1] = 9.0
    logits[0, 0, 2] = -math.inf
    logits[0, 1, 2] = math.nan
    logits[0, 2, 1] = math.inf
    stale = np.array([[IGNORED_LABEL, 1, 1, IGNORED_LABEL]])
    [record] = scored(logits, stale=stale)
    assert record["correct"] == 2 and not record["exact"] and math.isnan(record["loss"])
    assert record["stale_named"] == 0 and record["stale_asked"] == 2
    [finite] = scored(logits[:, [0, 3]])
    assert finite["correct"] == 2 and finite["exact"] and math.isfinite(finite["loss"])


def test_loss_is_the_mean_over_the_labels_of_a_sample():
    logits = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    labels = np.array([[1, IGNORED_LABEL, 2, 3, 4], [IGNORED_LABEL] * 4 + [6], [0] * 5])
    records = score(logits, Samples(np.zeros_like(labels), labels), Names())
    for record, row, expected in zip(records, logits, torch.from_numpy(labels), strict=True):
        loss = torch.nn.functional.cross_entropy(row, expected, ignore_index=IGNORED_LABEL)
        assert record["loss"] == pytest.approx(float(loss), rel=1e-6)
        assert record["total"] == int((expected != IGNORED_LABEL).sum())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": np.full((3, 5), IGNORED_LABEL)}, "a sample has no label"),
        ({"labels": np.zeros((3, 4), dtype=np.int64)}, r"labels is int64 of shape \(3, 4\), expected int64 \(3, 5\)"),
        ({"input_ids": np.zeros((3, 5), dtype=np.int32)}, "input_ids is int32"),
        ({"answers": {"stale": np.eye(3, 5, dtype=np.int64)}}, "stale has an id where no label stands"),
    ],
)
def test_a_generator_that_breaks_its_rules_is_told(change, message, monkeypatch):
    labels = np.full((3, 5), IGNORED_LABEL)
    labels[:, 4] = 1
    wrong = dataclasses.replace(Samples(np.zeros((3, 5), dtype=np.int64), labels), **change)
    monkeypatch.setattr(Echo, "samples", lambda self, difficulty, draws: wrong)
    with pytest.raises(ValueError, match=f"echo: samples\\(\\) of length 4: {message}"):
        echo_task().evaluation_samples("test", Length(4), 0, 3)


def test_the_count_of_draws_has_to_be_fixed(monkeypatch):
    def draw_while(fits):
        def samples(self, difficulty, draws):
            ids = draws.below(8, 4)
            if fits(ids):
                ids = draws.below(8, 4)
            return Samples(ids, ids)

        monkeypatch.setattr(Echo, "samples", samples)
        echo_task().training_batch(0, 0, 3)

    # The first call, which counts, sees zeros alone.
    with pytest.raises(ValueError, match="more numbers here than in its first call"):
        draw_while(lambda ids: ids.any())
    with pytest.raises(ValueError, match="4 random numbers for a sample, in the first call 8: it has to be fixed"):
        draw_while(lambda ids: not ids.any())


def test_notes_tell_chance_bits_and_reach(monkeypatch):
    assert echo_task().report_notes(12) == ["Chance is 12.5%."]
    monkeypatch.setattr(Echo, "chance", lambda self, difficulty: 1 / (1000 * difficulty.length))
    monkeypatch.setattr(Echo, "lookback", lambda self, difficulty: 2 * difficulty.length)
    monkeypatch.setattr(Echo, "memory_bits", lambda self, difficulty: 3.0 * difficulty.length)
    monkeypatch.setattr(Echo, "notes", lambda self: ["And more."])
    assert echo_task().report_notes(12) == [
        "Chance is from 0.011% (length 9) to 0.025% (length 4) in the test set.",
        "A test sample takes up to 27 bits to remember (length 9); a smaller state has to err.",
        "This model's attention bridges at most 12 tokens: 1 of 2 test look-backs are longer and need another memory.",
        "And more.",
    ]
    assert "no finite reach" in " ".join(echo_task().report_notes(None))
    monkeypatch.setattr(Echo, "memory_bits", lambda self, difficulty: 1.0)
    assert "takes up to 1 bit to remember" in " ".join(echo_task().report_notes(12))


def test_the_lookback_is_a_coordinate_beside_the_reach(monkeypatch):
    monkeypatch.setattr(Echo, "lookback", lambda self, difficulty: 2)
    solver = Solver(9, echo(2))
    solver.attention_reach = 12
    evaluation = echo_task().evaluate(solver, "test")
    assert evaluation.measurements[0].coordinates == {"length": 4, "lookback": 2, "reach": 12}
    assert evaluation.items[0]["lookback"] == 2 and "reach" not in evaluation.items[0]


def test_ladders_are_read_entry_by_entry():
    @dataclass(frozen=True)
    class Ladder:
        lengths: tuple = (8, 8, 16)
        pairs: tuple = (1, 2, 2)

    require_ladder(Ladder(), "lengths", "pairs")
    with pytest.raises(RequestError, match="lengths has 3, pairs has 1"):
        require_ladder(Ladder(pairs=(1,)), "lengths", "pairs")
    with pytest.raises(RequestError, match="lengths and pairs name 8/1 more than once"):
        require_ladder(Ladder(pairs=(1, 1, 2)), "lengths", "pairs")
    with pytest.raises(RequestError, match="lengths names 8 more than once"):
        require_ladder(Ladder(), "lengths")


@pytest.fixture(params=sorted(announced(TASK_GROUP)))
def generated(request):
    """Every installed task that is built on the kit."""
    task_class = find_task(request.param)
    if not issubclass(task_class, SyntheticTask):
        pytest.skip("not a generated task")
    return task_class


def test_every_rung_of_every_preset_can_be_generated(generated):
    for preset in generated.presets.values():
        task = generated(preset.config)
        for split, rungs in (("validation", task.validation_set()), ("test", task.test_set())):
            for difficulty, count in rungs.items():
                samples = task.evaluation_samples(split, difficulty, count - 1, count)
                learned = samples.labels[samples.labels != IGNORED_LABEL]
                for ids in (samples.input_ids, learned):
                    assert ids.min() >= 0 and ids.max() < task.vocab_size
                assert 0 < task.chance(difficulty) < 1


def test_a_row_of_a_task_does_not_depend_on_its_batch(generated):
    task = generated(generated.presets[generated.default_preset].config)
    for index in range(3):
        small, large = (list(rows_of(task.training_batch(4, index, size))) for size in (3, 16))
        assert small == large[:3]


RECORDED = [
    [[85, 87, 80], [43, 68, 76]],
    [[1, 2, 0, 4, 3], [3, 4, 1, 0, 2]],
    [[12, 25, 13, 1], [19, 39, 1, 23]],
    [[1, 2], [2, 1]],
]
