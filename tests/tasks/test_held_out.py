"""Evaluation sets of generated tasks: no repeats, nothing of them in training, and a count of what cannot be kept out.

Counted here by comparing the token ids themselves, without the kit's fingerprints.
"""

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from generated_support import drawn, rows_of, shares, within_sampling_error
from hypothesis import given
from hypothesis import strategies as st
from test_every_task import GENERATED

from seqbench.contracts import TaskPreset
from seqbench_tasks.address_update import AddressUpdateConfig, AddressUpdateTask
from seqbench_tasks.copy_paste import CopyPasteConfig, CopyPasteTask
from seqbench_tasks.copy_paste.task import Payload
from seqbench_tasks.delayed_match import DelayedMatchTask
from seqbench_tasks.joint_recall import JointRecallConfig, JointRecallTask
from seqbench_tasks.joint_recall.task import Cell
from seqbench_tasks.latest_value import LatestValueConfig, LatestValueTask
from seqbench_tasks.latest_value.task import Corridors
from seqbench_tasks.mqar import MQARConfig, MQARTask
from seqbench_tasks.mqar.task import Pairs as QueriedPairs
from seqbench_tasks.needle import NeedleConfig, NeedleTask
from seqbench_tasks.needle.task import Length as ContextLength
from seqbench_tasks.parity import ParityTask
from seqbench_tasks.recall import RecallConfig, RecallTask
from seqbench_tasks.recall.task import Pairs
from seqbench_tasks.repeat_after_me import RepeatAfterMeConfig, RepeatAfterMeTask
from seqbench_tasks.repeat_after_me.task import Length as StringLength
from seqbench_tasks.set_disjointness import SetDisjointnessConfig, SetDisjointnessTask
from seqbench_tasks.set_disjointness.task import Sizes
from seqbench_tasks.synthetic import Difficulty, Samples, SyntheticConfig, SyntheticTask, held_out
from seqbench_tasks.synthetic.bit_windows import BitString, BitWindowConfig
from seqbench_tasks.synthetic.fingerprints import PartialSums, fingerprints

BATCHES, ROWS = 40, 64


def items(task, split) -> list[tuple[int, ...]]:
    """The inputs of every sample of a set, as they are evaluated."""
    return [
        tuple(row)
        for difficulty, count in task.evaluation_sets.of(split).items()
        for row in task.evaluation_samples(split, difficulty, 0, count).input_ids.tolist()
    ]


def trained(task, wanted, batches=BATCHES, seed=0) -> set[tuple[int, ...]]:
    """Which of the `wanted` inputs stand in training: at the beginning of a row, or where a string of a row begins."""
    lengths = sorted({len(each) for each in wanted})
    found = set()
    for index in range(batches):
        for inputs, _ in rows_of(task.training_batch(seed, index, ROWS)):
            starts = (
                [0] if task.first_token is None else [at for at, one in enumerate(inputs) if one == task.first_token]
            )
            parts = {
                tuple(inputs[at : at + length]) for at in starts for length in lengths if at + length <= len(inputs)
            }
            found |= parts & wanted
    return found


# Where few samples exist, with the number of samples of each set that is left; and what nothing would tell apart by
# length alone, such as strings inside longer sequences.
SMALL = {
    "two symbols": CopyPasteTask(CopyPasteConfig(minimum_length=2, maximum_length=4, test_lengths=(2, 3))),
    "two symbols in mixed rows": CopyPasteTask(
        CopyPasteConfig(minimum_length=2, maximum_length=3, test_lengths=(2,), mixed_lengths=True)
    ),
    "beginnings of longer strings": ParityTask(
        BitWindowConfig(windows=(4,), test_length_multiple=2, least_length=1, test_samples=64, validation_samples=16)
    ),
    "nine bits": DelayedMatchTask(BitWindowConfig(windows=(2, 3), least_length=1)),
    "strings in contexts": RepeatAfterMeTask(
        RepeatAfterMeConfig(
            alphabet_size=6, minimum_length=4, maximum_length=5, context_length=30, test_lengths=(4,), test_samples=40
        )
    ),
    "four facts": JointRecallTask(
        JointRecallConfig(fewest_contexts=1, most_contexts=2, fewest_keys=2, most_keys=2, values=8, test_samples=64)
    ),
    "one demonstration": AddressUpdateTask(AddressUpdateConfig(families=("ADD10",), addresses=1, demonstrations=1)),
}


@pytest.mark.parametrize("name", [*GENERATED, *SMALL])
def test_no_sample_comes_twice_and_none_is_trained_on(name):
    plugin = GENERATED.get(name)
    task = SMALL[name] if plugin is None else plugin(plugin.presets[plugin.default_preset].config)
    tested, validated = items(task, "test"), items(task, "validation")
    assert len(set(tested)) == len(tested) and len(set(validated)) == len(validated)
    assert not set(tested) & set(validated)
    assert not trained(task, {*tested, *validated})
    assert [(each.split, each.in_training, each.in_test) for each in task.contamination(0, BATCHES, ROWS)] == [
        ("validation", 0, 0),
        ("test", 0, 0),
    ]
    for counted, found in zip(task.contamination(0, 0, ROWS), (validated, tested), strict=True):
        assert counted.items == counted.distinct == len(found)


@pytest.mark.parametrize("name", ["copy-paste", "latest-value", "delayed-match"])
def test_presets_that_ask_for_few_samples_are_held_out_too(name):
    preset = {"copy-paste": "tiny-filler", "latest-value": "t-maze-fixed", "delayed-match": "multi-head"}[name]
    task = GENERATED[name](GENERATED[name].presets[preset].config)
    tested, validated = items(task, "test"), items(task, "validation")
    assert len({*tested, *validated}) == len(tested) + len(validated)
    assert not trained(task, {*tested, *validated}, batches=20)


def test_without_it_the_small_sets_would_be_trained_on(monkeypatch):
    """That the test above can fail."""
    task = SMALL["nine bits"]
    monkeypatch.setattr(type(task.evaluation_sets), "rows_held_out", lambda self, ids, lengths: np.zeros(0, np.int64))
    assert len(trained(task, set(items(task, "test")))) > 20


def test_of_few_samples_a_quarter_is_held_out_and_training_draws_all_others_alike():
    task = ParityTask(BitWindowConfig(windows=(2,), least_length=9))
    sets = {split: items(task, split) for split in ("test", "validation")}
    kept_out = {*sets["test"], *sets["validation"]}
    # 256 and 64 samples are asked for, and there are 512.
    assert 90 <= len(kept_out) <= 140 and 60 <= len(sets["test"]) <= 110 and len(sets["validation"]) >= 12
    rows = [inputs for index in range(400) for inputs, _ in rows_of(task.training_batch(5, index, 64))]
    seen = Counter(tuple(inputs) for inputs in rows if len(inputs) == 9)
    assert not kept_out & seen.keys() and len(seen) == 512 - len(kept_out)
    assert within_sampling_error(
        np.array(list(seen.values())) / seen.total(), np.full(len(seen), 1 / len(seen)), seen.total()
    )
    # A row that is drawn again keeps its length.
    assert within_sampling_error(shares([len(row) for row in rows], 10)[4:], [1 / 6] * 6, len(rows))
    asked = (
        f"The test set has {len(sets['test'])} different samples of window 2, length 9 instead of 256: there are few."
    )
    assert asked in task.report_notes(None)


TINY = BitWindowConfig(windows=(2, 6), least_length=1, test_length_multiple=2, test_samples=40, validation_samples=20)


@pytest.mark.parametrize("batches", [0, 1, 3, 60])
def test_what_cannot_be_kept_out_is_counted(batches):
    """Of five bits there are 32 strings."""
    task = ParityTask(TINY)
    whole = {split: items(task, split) for split in ("validation", "test")}
    counted = task.contamination(3, batches, ROWS)
    for split, found in whole.items():
        short = [item for item in found if len(item) == 5]
        assert len(set(short)) == len(short) <= 32
        seen = trained(task, set(found), batches, seed=3)
        all_of_it, *parts = [each for each in counted if each.split == split]
        assert (all_of_it.items, all_of_it.distinct) == (len(found), len(set(found)))
        assert all_of_it.in_training == len(seen & set(short)) == len(seen)
        assert all_of_it.in_test == (len(set(short) & set(whole["test"])) if split == "validation" else 0)
        assert [dict(part.coordinates) for part in parts if part.in_training] == (
            [{"window": 2, "length": 5}] if seen else []
        )
    assert any(
        "too few samples of window 2, length 5 to keep the test set from training" in note
        for note in task.report_notes(None)
    )


def test_the_stream_is_gone_through_only_until_everything_is_found(monkeypatch):
    task, asked = ParityTask(TINY), []
    batch = task.training_batch
    monkeypatch.setattr(
        task, "training_batch", lambda seed, index, size: asked.append(index) or batch(seed, index, size)
    )
    task.contamination(0, 10**9, ROWS)
    assert asked == list(range(len(asked))) and 0 < len(asked) < 200
    sure = NeedleTask(NeedleConfig())
    monkeypatch.setattr(sure, "training_batch", None)
    assert [each.in_training for each in sure.contamination(0, 10**9, ROWS)] == [0, 0]


@dataclass(frozen=True)
class Letters(Difficulty):
    length: int
    shown: int = 0


class Strangers(SyntheticTask[SyntheticConfig, Letters]):
    """Name each letter: a task that says nothing of how many samples it has. Letters differ in how often they come."""

    name = "strangers"
    summary = "name each letter"
    version = "1"
    config_class = SyntheticConfig
    presets = {"tiny": TaskPreset(SyntheticConfig(), "tests")}  # noqa: RUF012
    primary_coordinate = "length"
    vocab_size = 10
    training = {Letters(3): 1, Letters(4): 1}  # noqa: RUF012
    tested = {Letters(3): 200}  # noqa: RUF012

    def training_mixture(self):
        return self.training

    def validation_set(self):
        return {Letters(4): 30}

    def test_set(self):
        return self.tested

    def samples(self, difficulty, draws):
        letters = draws.below(10, difficulty.length) * draws.events(0.8, difficulty.length)
        return Samples(letters, letters)

    def chance(self, difficulty):
        return 1 / 10


def test_samples_that_are_not_alike_likely_are_held_out_as_far_as_training_can_do_without_them():
    """The first letter comes more often, and 200 of the 1,000 samples are more than a quarter of what is drawn."""
    task = Strangers(SyntheticConfig())
    tested, validated = items(task, "test"), items(task, "validation")
    assert 8 <= len(tested) < 200 and len({*tested, *validated}) == len(tested) + len(validated)
    assert not trained(task, {*tested, *validated})
    drawn_again = task.evaluation_sets.rows_held_out(task.probe(Letters(3), 4000).input_ids, [3] * 4000)
    assert len(drawn_again) / 4000 < 0.35


def test_a_difficulty_that_training_could_not_go_round_is_shared(monkeypatch):
    """Its samples are those of another one, all of which are in the test set."""
    monkeypatch.setattr(Strangers, "training", {Letters(1, shown=1): 1})
    monkeypatch.setattr(Strangers, "tested", {Letters(1): 100})
    task = Strangers(SyntheticConfig())
    assert len(items(task, "test")) == 10
    [_, counted, part] = task.contamination(0, 50, ROWS)
    assert (counted.items, counted.in_training, part.coordinates["length"]) == (10, 10, 1)


def test_a_mixture_that_comes_later_and_holds_nothing_else_is_told(monkeypatch):
    monkeypatch.setattr(Strangers, "training", {Letters(3): 1})
    task = Strangers(SyntheticConfig())
    tested = items(task, "test")[0]
    monkeypatch.setattr(Strangers, "samples", lambda self, difficulty, draws: repeated(tested, draws))
    with pytest.raises(ValueError, match="strangers: training samples of length 3, shown 0 are all in the validation"):
        task.training_batch(0, 0, 4)


def repeated(item, draws):
    draws.numbers(6)
    ids = np.tile(np.array(item), (draws.count, 1))
    return Samples(ids, ids)


def test_the_sets_are_a_function_of_the_config():
    config = BitWindowConfig(windows=(2, 3), least_length=9)
    one, other = ParityTask(config), ParityTask(config)
    one.training_batch(3, 9, 5)
    assert items(one, "test") == items(other, "test")
    rung, count = next(iter(one.evaluation_sets.of("test").items()))
    parts = [one.evaluation_samples("test", rung, at, at + 1).input_ids[0].tolist() for at in range(count)]
    assert parts == other.evaluation_samples("test", rung, 0, count).input_ids.tolist()
    # Another config, whose sets are larger, holds out the same ones first.
    more = ParityTask(dataclasses.replace(config, windows=(5,), test_samples=300))
    fewer = ParityTask(dataclasses.replace(config, windows=(5,)))
    assert items(more, "test")[:256] == items(fewer, "test")


@pytest.mark.parametrize("name", ["nine bits", "strings in contexts", "two symbols in mixed rows"])
def test_how_many_tokens_are_looked_at_together_changes_nothing(name, monkeypatch):
    expected = [(each.split, each.places.tolist(), each.held_out) for each in SMALL[name].evaluation_sets]
    batch = SMALL[name].training_batch(0, 7, 64).input_ids
    monkeypatch.setattr(held_out, "_TOKENS_AT_ONCE", 70)
    task = type(SMALL[name])(SMALL[name].config)
    assert [(each.split, each.places.tolist(), each.held_out) for each in task.evaluation_sets] == expected
    assert torch.equal(task.training_batch(0, 7, 64).input_ids, batch)


def test_a_set_that_asks_for_far_more_than_there_are_is_drawn_until_nothing_new_comes():
    config = dataclasses.replace(TINY, windows=(2,), test_samples=2**20, validation_samples=1)
    task, asked = ParityTask(config), []
    samples_at = task.samples_at
    task.samples_at = lambda split, rung, places: asked.append(len(places)) or samples_at(split, rung, places)
    assert len(items(task, "test")) == 31 and sum(asked) < 200_000


@given(st.data())
def test_a_part_has_the_same_fingerprint_wherever_it_stands(data):
    part = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=12))
    before = data.draw(st.lists(st.integers(0, 5), max_size=9))
    behind = data.draw(st.lists(st.integers(0, 5), max_size=9))
    row = np.array([[*before, *part, *behind]])
    at, length = np.array([len(before)]), np.array([len(part)])
    alone = fingerprints(np.array([part]))
    assert PartialSums(row).parts(np.array([0]), at, length) == alone
    other = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=12))
    assert (fingerprints(np.array([other])) == alone) == (other == part)


def test_fingerprints_tell_all_short_sequences_apart():
    """Also those that differ in the order of their tokens alone, and those that are longer by zeros."""
    every = [fingerprints(np.array(list(np.ndindex(*[4] * length)))) for length in range(1, 8)]
    assert len(np.unique(np.concatenate(every))) == sum(4**length for length in range(1, 8))


BITS = [
    (
        RecallTask(RecallConfig(training_lengths=(7,), training_pairs=(1,), test_lengths=(8,), test_pairs=(1,))),
        Pairs(8, 1),
    ),
    (MQARTask(MQARConfig(vocabulary=10, random_non_queries=False)), QueriedPairs(6, 1)),
    (JointRecallTask(JointRecallConfig(fewest_contexts=1, fewest_keys=1, values=6)), Cell(2, 1)),
    (SetDisjointnessTask(SetDisjointnessConfig(vocabulary=30)), Sizes(1, 2)),
    (CopyPasteTask(CopyPasteConfig(alphabet_size=5, filler_length=3)), Payload(3)),
    (NeedleTask(NeedleConfig(noise=3, keys=2, values=2)), ContextLength(9)),
    (LatestValueTask(LatestValueConfig(keys=1, values=2, rewrites=1, queries=1)), Corridors(2, 5)),
    (
        LatestValueTask(
            LatestValueConfig(
                keys=1,
                values=3,
                rewrites=1,
                queries=1,
                uniform_corridors=True,
                training_corridors=(2,),
                test_corridors=(2,),
            )
        ),
        Corridors(2, 3),
    ),
    (RepeatAfterMeTask(RepeatAfterMeConfig(alphabet_size=3)), StringLength(4)),
    (RepeatAfterMeTask(RepeatAfterMeConfig(alphabet_size=3, variant="duplicate-ngram")), StringLength(5)),
    (RepeatAfterMeTask(RepeatAfterMeConfig(alphabet_size=3, variant="prefix-ngram")), StringLength(5)),
    (ParityTask(BitWindowConfig(windows=(2,))), BitString(2, 7)),
]


@pytest.mark.parametrize("task, difficulty", BITS, ids=[f"{task.name}-{rung}" for task, rung in BITS])
def test_no_sample_is_likelier_than_its_bits_say(task, difficulty):
    """And the bits are not far too few, which would make large sets look small."""
    found = Counter(map(tuple, drawn(task, difficulty, 40_000).input_ids.tolist()))
    bits, likeliest = task.sample_bits(difficulty), found.most_common(1)[0][1] / found.total()
    assert 3 < bits < 12
    assert likeliest <= 2**-bits + 5 * math.sqrt(2**-bits / found.total())
    assert likeliest >= 2**-bits / 300
