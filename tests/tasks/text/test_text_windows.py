"""Training windows: every byte once in an epoch, no window across documents, the same order for every model."""

import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from seqbench.contracts import IGNORED_LABEL
from seqbench.errors import RequestError
from seqbench_tasks.text.config import CorpusConfig
from seqbench_tasks.text.openers import open_corpus
from seqbench_tasks.text.shuffle import Permutation
from seqbench_tasks.text.windows import BOS, training_batch

few = settings(max_examples=25)
# Characters of one to four bytes, line ends of every kind, and words that a tokenizer merges.
texts = st.lists(
    st.sampled_from(["the ", "cat", "\r\n", "\n", "\r", "é", "ß", "—", "漢", "𝄞", " ", "x", "\ufeff"]),
    min_size=1,
    max_size=60,
).map("".join)
corpora = st.lists(texts, min_size=1, max_size=8)


@st.composite
def documents(draw):
    return [f"{number}:{text}".encode() for number, text in enumerate(draw(corpora))]


def corpus_of(contents, folder, **changes):
    """A corpus that trains on all of `contents`."""
    for number, content in enumerate(contents):
        (folder / f"{number:03}.txt").write_bytes(content)
    changes = {"validation_fraction": 0.0, "test_fraction": 0.0, **changes}
    return open_corpus(CorpusConfig(data=str(folder), **changes))


@pytest.fixture(scope="module")
def byte_pairs():
    """A byte-level BPE of a few merges, as GPT-2's: lossless, with a token for the beginning of a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<bos>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat the cat the the cat é é — 漢 漢"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", pad_token="<pad>")


def rows(batch):
    """Inputs and labels of each sequence, padding left out."""
    for inputs, labels, length in zip(batch.input_ids.tolist(), batch.labels.tolist(), batch.lengths, strict=True):
        yield inputs[:length], labels[:length]


def windows_of_an_epoch(corpus, seed, window_bytes, tokenizer=None):
    """(inputs, labels) of every window of the first epoch."""
    count = corpus.window_order(window_bytes).count(2**62)
    found = []
    for index in range(-(-count // 3)):
        found += rows(training_batch(corpus, seed, index, 3, window_bytes, tokenizer))
    return found[:count]


@few
@given(documents(), st.integers(16, 40), st.integers(0, 2**64 - 1))
def test_every_byte_of_every_document_is_a_label_once_an_epoch(contents, window_bytes, seed):
    with tempfile.TemporaryDirectory() as name:
        windows = windows_of_an_epoch(corpus_of(contents, Path(name)), seed, window_bytes)
    assert Counter(byte for _, labels in windows for byte in labels) == Counter(b"".join(contents))
    pieces = Counter(bytes(labels) for _, labels in windows)
    for content in contents:
        left = content
        while left:
            piece = max((p for p in pieces if pieces[p] and left.startswith(p)), key=len, default=None)
            assert piece, "a window that is no piece of this document, or too few"
            pieces[piece] -= 1
            left = left[len(piece) :]
    assert not any(pieces.values())


@few
@given(documents(), st.integers(16, 40))
def test_windows_do_not_cross_documents_and_begin_with_what_stands_before_them(contents, window_bytes):
    with tempfile.TemporaryDirectory() as name:
        windows = windows_of_an_epoch(corpus_of(contents, Path(name)), 0, window_bytes)
    firsts = 0
    for inputs, labels in windows:
        assert inputs[1:] == labels[:-1] and len(labels) <= window_bytes
        if inputs[0] == BOS:
            firsts += 1
            assert any(content.startswith(bytes(labels)) for content in contents)
        else:
            assert any(bytes([inputs[0], *labels]) in content for content in contents)
    assert firsts == len(contents)


@few
@given(documents(), st.integers(16, 40), st.integers(0, 2**32))
def test_tokens_of_an_epoch_give_every_character_once_also_where_a_border_cuts_it(
    byte_pairs, contents, window_bytes, seed
):
    with tempfile.TemporaryDirectory() as name:
        corpus = corpus_of(contents, Path(name))
        windows = windows_of_an_epoch(corpus, seed, window_bytes, byte_pairs)
        in_bytes = windows_of_an_epoch(corpus, seed, window_bytes)
    decoded = [byte_pairs.decode([label for label in labels if label != IGNORED_LABEL]) for _, labels in windows]
    assert Counter("".join(decoded)) == Counter(b"".join(contents).decode())
    # The same windows in the same order, but for the characters that a border cuts.
    for text, (_, labels) in zip(decoded, in_bytes, strict=True):
        assert text.encode().startswith(bytes(labels).lstrip(bytes(range(0x80, 0xC0)))[:-3])
    assert all(IGNORED_LABEL not in labels for _, labels in windows), "every token has something before it"


@few
@given(documents(), st.integers(16, 40), st.integers(0, 2**32), st.integers(0, 2**40), st.integers(1, 9))
def test_the_raw_bytes_of_a_batch_are_the_same_in_bytes_and_in_tokens(
    byte_pairs, contents, window_bytes, seed, index, size
):
    with tempfile.TemporaryDirectory() as name:
        corpus = corpus_of(contents, Path(name))
        in_bytes = training_batch(corpus, seed, index, size, window_bytes)
        in_tokens = training_batch(corpus, seed, index, size, window_bytes, byte_pairs)
    assert in_bytes.raw == in_tokens.raw == b"".join(bytes(labels) for _, labels in rows(in_bytes))
    assert in_tokens.input_ids.shape[0] == in_bytes.input_ids.shape[0] == size


def test_without_a_token_for_the_beginning_only_the_first_token_of_a_document_is_no_label(byte_pairs, tmp_path):
    byte_pairs = byte_pairs.__class__(tokenizer_object=byte_pairs.backend_tokenizer)
    assert byte_pairs.bos_token_id is None
    corpus = corpus_of([b"the cat the cat the cat", b"x"], tmp_path)
    ids = [byte_pairs.encode(text) for text in ("the cat the cat ", "the cat")]
    windows = windows_of_an_epoch(corpus, 0, 16, byte_pairs)
    expected = [(ids[0][:-1], ids[0][1:]), ([ids[0][-1], *ids[1][:-1]], ids[1])]
    assert all(pair in windows for pair in expected)
    # A single token that nothing predicts is read, and is no label.
    assert (byte_pairs.encode("x"), [IGNORED_LABEL]) in windows


def test_padding_stands_behind_short_windows_and_is_masked(tmp_path):
    corpus = corpus_of([b"a" * 20, b"b" * 16], tmp_path)
    batch = training_batch(corpus, 0, 0, 3, 16)
    assert batch.input_ids.shape == (3, 16) and batch.attention_mask.sum(1).sort().values.tolist() == [4, 16, 16]
    assert batch.input_ids[batch.attention_mask == 0].eq(0).all()
    assert batch.labels[batch.attention_mask == 0].eq(IGNORED_LABEL).all()
    assert batch.labels[batch.attention_mask == 1].ne(IGNORED_LABEL).all()
    assert training_batch(corpus, 0, 0, 1, 8).attention_mask is None


@pytest.mark.parametrize("tail", ["é", "漢", "𝄞"])
def test_a_character_at_the_end_of_a_document_keeps_a_window_of_its_own_from_being_empty(byte_pairs, tmp_path, tail):
    corpus = corpus_of([("x" * 31 + tail).encode()], tmp_path)
    for size in (1, 2):
        for index in range(3):
            batch = training_batch(corpus, 0, index, size, 32, byte_pairs)
            assert batch.labels.ne(IGNORED_LABEL).any(dim=1).all()


def test_batches_are_pure_and_nested_in_the_batch_size(tmp_path):
    contents = [bytes([65 + number]) * (50 * number + 7) for number in range(6)]
    corpus = corpus_of(contents, tmp_path)
    again = open_corpus(CorpusConfig(data=str(tmp_path), validation_fraction=0.0, test_fraction=0.0))
    places = [(0, 0), (0, 1), (7, 100_000), (2**64 - 1, 3)]
    expected = [training_batch(corpus, *place, 5, 32) for place in places]
    torch.rand(3)
    found = [training_batch(again, *place, 5, 32) for place in reversed(places)]
    assert all(torch.equal(a.input_ids, b.input_ids) for a, b in zip(expected, reversed(found), strict=True))
    # Batch 2 of size 4 holds the windows 8 to 11 of the order.
    order = [row for index in range(12) for row in rows(training_batch(corpus, 3, index, 1, 32))]
    assert list(rows(training_batch(corpus, 3, 2, 4, 32))) == order[8:]


def test_seeds_and_epochs_have_orders_of_their_own(tmp_path):
    corpus = corpus_of([bytes(range(65, 65 + 60)) * 40], tmp_path)
    count = corpus.window_order(16).count(2**62)
    epochs = {training_batch(corpus, seed, index, count, 16).raw for seed in range(3) for index in range(3)}
    assert len(epochs) == 9 and len({bytes(sorted(epoch)) for epoch in epochs}) == 1


@pytest.mark.parametrize("seed, index", [(-1, 0), (2**64, 0)])
def test_seeds_out_of_range_are_refused(tmp_path, seed, index):
    with pytest.raises(RequestError, match="from 0 to 2"):
        training_batch(corpus_of([b"some text"], tmp_path), seed, index, 1, 16)


@settings(max_examples=60)
@given(st.integers(1, 700), st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 5)))
def test_a_permutation_takes_every_place_once(size, key):
    order = Permutation(size, key)
    assert sorted(order[place] for place in range(size)) == list(range(size))
    for outside in (-1, size):
        with pytest.raises(IndexError):
            order[outside]


def test_a_permutation_looks_random():
    size, keys = 64, 2000
    # How often each of the first places is taken by each number: 31.25 times, give or take 5.5.
    counts = Counter((place, Permutation(size, (key,))[place]) for key in range(keys) for place in (0, 1, 63))
    mean = keys / size
    for place in (0, 1, 63):
        statistic = sum((counts[place, number] - mean) ** 2 / mean for number in range(size))
        # The upper 1e-6 quantile of chi squared with 63 degrees of freedom.
        assert statistic < 131
    order = Permutation(10_000, (5,))
    neighbours = sum(abs(order[place] - order[place + 1]) for place in range(9_999)) / 9_999
    assert neighbours == pytest.approx(10_000 / 3, rel=0.05)


def test_the_order_is_the_one_that_was_recorded():
    """Changes only together with the version of the tasks that use it."""
    assert [Permutation(1000, (7, 0, 0, 1000))[place] for place in range(8)] == RECORDED


RECORDED = [282, 450, 685, 876, 256, 655, 952, 481]
