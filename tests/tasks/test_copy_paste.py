"""Copy-paste: the generator against the definition of the task, and its settings."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.contracts import IGNORED_LABEL, Batch, describe_settings, with_settings
from seqbench.errors import RequestError
from seqbench_tasks.copy_paste import CopyPasteConfig, CopyPasteTask
from seqbench_tasks.copy_paste.task import Payload

seeds = st.integers(0, 2**64 - 1)
indices = st.integers(0, 2**40)
batch_sizes = st.integers(1, 9)
few = settings(max_examples=15, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Hundreds of tiny calls: on cores shared with others, waiting for a second thread costs milliseconds each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@st.composite
def configs(draw):
    shortest = draw(st.integers(1, 12))
    longest = draw(st.integers(shortest, 24))
    return CopyPasteConfig(
        alphabet_size=draw(st.sampled_from([2, 3, 32, 256])),
        minimum_length=shortest,
        maximum_length=longest,
        filler_length=draw(st.integers(0, 7)),
        mixed_lengths=draw(st.booleans()),
        curriculum_batches=draw(st.integers(0, 20)) if longest > shortest else 0,
    )


def same(left: Batch, right: Batch) -> bool:
    masks = (left.attention_mask, right.attention_mask)
    equal_masks = masks == (None, None) or torch.equal(*masks)
    return equal_masks and torch.equal(left.input_ids, right.input_ids) and torch.equal(left.labels, right.labels)


def evaluation_strings(config: CopyPasteConfig, split: str, length: int, start: int, stop: int):
    return CopyPasteTask(config).evaluation_samples(split, Payload(length), start, stop).input_ids


def unpadded_rows(batch: Batch):
    for row in range(batch.input_ids.shape[0]):
        end = batch.input_ids.shape[1] if batch.attention_mask is None else int(batch.attention_mask[row].sum())
        yield batch.input_ids[row, :end].tolist(), batch.labels[row, :end].tolist()


@few
@given(configs(), seeds, indices, batch_sizes)
def test_every_row_is_payload_filler_separator_paste(config, seed, index, batch_size):
    batch = CopyPasteTask(config).training_batch(seed, index, batch_size)
    alphabet, filler = config.alphabet_size, config.filler_length
    for inputs, labels in unpadded_rows(batch):
        length, remainder = divmod(len(inputs) - filler, 2)
        payload = inputs[:length]
        assert remainder == 0 and config.minimum_length <= length <= config.maximum_length
        assert all(0 <= symbol < alphabet for symbol in payload)
        assert inputs == payload + [alphabet + 1] * filler + [alphabet] + payload[:-1]
        assert labels == [IGNORED_LABEL] * (length + filler) + payload


@few
@given(configs(), seeds, indices, batch_sizes)
def test_lookback_is_the_distance_to_the_source(config, seed, index, batch_size):
    for inputs, labels in unpadded_rows(CopyPasteTask(config).training_batch(seed, index, batch_size)):
        length = (len(inputs) - config.filler_length) // 2
        labelled = [position for position, label in enumerate(labels) if label != IGNORED_LABEL]
        sources = [position - config.lookback(length) for position in labelled]
        assert sources == list(range(length))
        assert all(inputs[source] == labels[position] for source, position in zip(sources, labelled, strict=True))


@few
@given(configs(), seeds, indices, batch_sizes)
def test_shapes_ids_and_masks(config, seed, index, batch_size):
    task = CopyPasteTask(config)
    batch = task.training_batch(seed, index, batch_size)
    assert batch.input_ids.shape == batch.labels.shape and batch.input_ids.shape[0] == batch_size
    assert batch.input_ids.shape[1] <= task.longest_sequence
    assert batch.input_ids.dtype == batch.labels.dtype == torch.int64
    assert batch.input_ids.min() >= 0 and batch.input_ids.max() < task.vocab_size == config.alphabet_size + 3
    if not config.mixed_lengths:
        assert batch.attention_mask is None
        return
    mask = batch.attention_mask
    assert mask is not None and mask.dtype == torch.int64 and mask[:, :-1].ge(mask[:, 1:]).all()
    assert mask.all(dim=1).any(), "padded further than the longest row"
    assert (batch.input_ids[mask == 0] == config.padding).all() and (batch.labels[mask == 0] == IGNORED_LABEL).all()
    assert (batch.input_ids[mask == 1] != config.padding).all()


@few
@given(configs(), seeds, indices, batch_sizes)
def test_batches_are_pure_and_nested_in_the_batch_size(config, seed, index, batch_size):
    batch = CopyPasteTask(config).training_batch(seed, index, batch_size)
    torch.rand(3)
    CopyPasteTask(config).training_batch(seed, index + 1, batch_size)
    again = CopyPasteTask(dataclasses.replace(config)).training_batch(seed, index, batch_size)
    assert same(batch, again)
    larger = list(unpadded_rows(CopyPasteTask(config).training_batch(seed, index, batch_size + 3)))
    assert larger[:batch_size] == list(unpadded_rows(batch))


def test_order_of_calls_does_not_matter():
    task = CopyPasteTask(CopyPasteConfig())
    forward = [task.training_batch(5, index, 4) for index in range(12)]
    backward = [task.training_batch(5, index, 4) for index in reversed(range(12))]
    assert all(same(*pair) for pair in zip(forward, reversed(backward), strict=True))


def test_seeds_and_indices_give_different_batches():
    task = CopyPasteTask(CopyPasteConfig(minimum_length=16, maximum_length=16))
    # 2**32 spells the words (0, 1): with numbers of varying width it would collide with other pairs.
    pairs = [(seed, index) for seed in (0, 1, 2, 2**32, 2**33) for index in (0, 1, 2, 2**32)]
    assert len({tuple(task.training_batch(*pair, 2).input_ids.flatten().tolist()) for pair in pairs}) == len(pairs)


def test_the_stream_is_the_one_that_was_recorded():
    """Changes only together with DATA_VERSION."""
    batch = CopyPasteTask(CopyPasteConfig()).training_batch(3, 7, 2)
    assert batch.input_ids.tolist() == RECORDED_TRAINING
    assert evaluation_strings(CopyPasteConfig(), "test", 4, 1, 2).tolist() == RECORDED_TEST


def test_symbols_and_lengths_are_uniform():
    config = CopyPasteConfig(alphabet_size=8, minimum_length=3, maximum_length=6, mixed_lengths=True)
    for mixed in (True, False):
        task = CopyPasteTask(dataclasses.replace(config, mixed_lengths=mixed))
        rows = [row for index in range(200) for row in unpadded_rows(task.training_batch(0, index, 16))]
        lengths = torch.tensor([len(inputs) // 2 for inputs, _ in rows])
        draws = len(rows) if mixed else 200
        shares = torch.bincount(lengths, minlength=7)[3:] / len(rows)
        assert (shares - 1 / 4).abs().max() < 4 * math.sqrt(3 / 16 / draws)
        symbols = torch.tensor([label for _, labels in rows for label in labels if label != IGNORED_LABEL])
        shares = torch.bincount(symbols, minlength=8) / len(symbols)
        assert (shares - 1 / 8).abs().max() < 4 * math.sqrt(7 / 64 / len(symbols))


def test_curriculum_grows_from_the_shortest_to_the_longest():
    config = CopyPasteConfig(minimum_length=3, maximum_length=13, curriculum_batches=20)
    largest = [config.largest_training_length(index) for index in range(25)]
    assert largest == sorted(largest) and largest[0] == 3 and largest[19] == 12 and largest[20:] == [13] * 5
    for mixed in (True, False):
        task = CopyPasteTask(dataclasses.replace(config, mixed_lengths=mixed))
        for index, limit in enumerate(largest):
            assert task.training_batch(0, index, 8).input_ids.shape[1] <= 2 * limit
    assert CopyPasteConfig(minimum_length=3, maximum_length=13).largest_training_length(0) == 13


def test_evaluation_sets_are_nested_distinct_and_apart_from_training():
    config = CopyPasteConfig(minimum_length=20, maximum_length=20)
    test = evaluation_strings(config, "test", 20, 0, 50).tolist()
    assert evaluation_strings(config, "test", 20, 0, 10).tolist() == test[:10]
    assert evaluation_strings(config, "test", 20, 30, 31).tolist() == test[30:31]
    validation = evaluation_strings(config, "validation", 20, 0, 50).tolist()
    # Training streams whose (seed, index) spell an evaluation stream's (length, index).
    training = [CopyPasteTask(config).training_batch(20, index, 1).input_ids[0].tolist() for index in range(50)]
    assert len({tuple(row) for row in test + validation + training}) == 150


@pytest.mark.parametrize("seed, index", [(-1, 0), (0, -1), (2**64, 0)])
def test_seeds_out_of_range_are_refused(seed, index):
    with pytest.raises(RequestError, match="from 0 to 2"):
        CopyPasteTask(CopyPasteConfig()).training_batch(seed, index, 1)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"minimum_length": "30"}, "minimum_length 30 is larger than maximum_length 20"),
        ({"alphabet_size": "1"}, "alphabet_size must be from 2"),
        ({"test_lengths": "4,6,4"}, "test_lengths names 4 more than once"),
        ({"test_lengths": "4,0"}, "test_lengths must be from 1"),
        ({"test_lengths": ""}, "test_lengths takes a comma-separated list"),
        ({"filler_length": "-1"}, "filler_length must be from 0"),
        ({"minimum_length": "20", "curriculum_batches": "5"}, "curriculum_batches 5 has nothing to grow"),
        ({"mixed_lengths": "perhaps"}, "mixed_lengths takes true or false"),
        ({"filler": "3"}, "did you mean"),
    ],
)
def test_wrong_settings_say_what_is_wrong(changes, message):
    with pytest.raises(RequestError, match=message):
        with_settings(CopyPasteConfig(), changes, "task copy-paste")
    with pytest.raises(RequestError, match="test_lengths must be"):
        CopyPasteConfig(test_lengths=())


def test_settings_are_parsed():
    config = with_settings(CopyPasteConfig(), {"test_lengths": "3, 5", "mixed_lengths": "yes"}, "task copy-paste")
    assert config.test_lengths == (3, 5) and config.mixed_lengths
    assert all(info.help for info in describe_settings(CopyPasteConfig).values())


@given(st.integers(1, 2000), st.integers(0, 2000))
def test_validation_lengths_lie_in_the_training_range(shortest, span):
    lengths = CopyPasteConfig(minimum_length=shortest, maximum_length=shortest + span).validation_lengths
    assert 1 <= len(lengths) <= 4 and lengths[-1] == shortest + span and lengths[0] >= shortest
    assert list(lengths) == sorted(set(lengths))


def test_presets():
    assert CopyPasteTask.default_preset in CopyPasteTask.presets
    trainer_fields = [set(preset.trainer) for preset in CopyPasteTask.presets.values()]
    assert all(fields == trainer_fields[0] for fields in trainer_fields)
    for preset in CopyPasteTask.presets.values():
        batch = CopyPasteTask(preset.config).training_batch(0, 0, 2)
        assert batch.input_ids.shape[0] == 2 and preset.summary
    assert CopyPasteTask(CopyPasteTask.presets["paper"].config).vocab_size == 259


def test_notes_under_the_table():
    task = CopyPasteTask(CopyPasteConfig(filler_length=3, test_lengths=(4, 9, 15)))
    limited, unlimited = " ".join(task.report_notes(12)), " ".join(task.report_notes(None))
    assert "Chance is 3.1%" in limited and "75 bits" in limited and "+ 3 filler symbols" in limited
    assert "at most 12 tokens" in limited and "1 of 3 test look-backs are longer" in limited
    assert "no finite reach" in unlimited
    assert "filler" not in " ".join(CopyPasteTask(CopyPasteConfig()).report_notes(None))


RECORDED_TRAINING = [
    [10, 28, 19, 3, 3, 17, 26, 26, 32, 10, 28, 19, 3, 3, 17, 26],
    [9, 9, 21, 29, 11, 19, 4, 21, 32, 9, 9, 21, 29, 11, 19, 4],
]
RECORDED_TEST = [[6, 6, 28, 13, 32, 6, 6, 28]]
