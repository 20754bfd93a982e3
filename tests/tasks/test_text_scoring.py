"""Scoring of documents: every byte once, whatever the chunks, the limit, the protocol and the tokenizer."""

import math

import numpy as np
import pytest
import torch
from hash_predictor import HashPredictor, byte_pair_tokenizer, full_forward
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast

from seqbench.errors import RequestError, RunFailure
from seqbench.evaluating.predictor import ModelPredictor
from seqbench.plugins.registry import find_model
from seqbench_tasks.text.followable import require_followable
from seqbench_tasks.text.protocol import parse_protocol
from seqbench_tasks.text.scoring import call_tokens, score
from seqbench_tasks.text.tokens import TokenisedText, read_tokens

few = settings(max_examples=15, deadline=None)
BOS = 254
BITS_8 = 8 * math.log(2)
PROSE = "Call me Ishmael. Some years ago - never mind how long precisely - having little money, I went to sea. " * 3
SPECIAL = "naïve café, 漢字かな, 😀🏳️‍🌈 — end.\n\n  two spaces\tand a tab \r\n"
texts = st.text(st.sampled_from("ab é漢😀\n.The"), min_size=1, max_size=60)


def read_from(data: bytes):
    return lambda start, stop: data[start:stop]


def tokens_of(data: bytes, limit: int | None = None, tokenizer=None):
    return read_tokens(read_from(data), len(data), limit, tokenizer)


def nats_of(predictor, tokens, protocol="carried", chunk_length=None) -> np.ndarray:
    """All bytes of a document, after a look at what the parts say of themselves."""
    parts = list(score(predictor, tokens, parse_protocol(protocol), chunk_length))
    assert [part.start for part in parts] == np.cumsum([0, *(len(part.nats) for part in parts)])[:-1].tolist()
    assert sum(part.tokens for part in parts) == tokens.length
    return np.concatenate([part.nats for part in parts])


@pytest.fixture(scope="module")
def byte_pairs() -> PreTrainedTokenizerFast:
    """A tokenizer of bytes and merges; rare characters take several tokens. It has no bos."""
    return byte_pair_tokenizer(PROSE, "The\n" * 50)


@pytest.fixture(scope="module")
def byte_pairs_with_bos(byte_pairs) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(byte_pairs.backend_tokenizer.to_str()))
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    return tokenizer


@few
@given(st.binary(min_size=1, max_size=80), st.integers(1, 90))
def test_carried_state_in_any_chunks_is_one_forward_pass_over_bos_and_document(data, chunk_length):
    predictor = HashPredictor(256)
    found = nats_of(predictor, tokens_of(data), "carried", chunk_length)
    assert np.array_equal(found, full_forward(predictor, [BOS, *data]))
    assert len(found) == len(data)


@few
@given(st.binary(min_size=1, max_size=80), st.integers(1, 90), st.integers(1, 90))
def test_reset_reads_every_k_bytes_as_a_document_of_their_own(data, interval, chunk_length):
    predictor = HashPredictor(256)
    pieces = [data[start : start + interval] for start in range(0, len(data), interval)]
    expected = np.concatenate([full_forward(predictor, [BOS, *piece]) for piece in pieces])
    assert np.array_equal(nats_of(predictor, tokens_of(data), f"reset:{interval}", chunk_length), expected)


@few
@given(st.binary(min_size=1, max_size=80), st.integers(1, 30), st.integers(0, 30), st.integers(1, 90), st.booleans())
def test_sliding_predicts_every_byte_once_from_the_window_that_ends_with_it(data, stride, more, chunk_length, carries):
    predictor = HashPredictor(256, carries)
    expected = []
    for first in range(0, len(data), stride):
        start, stop = max(0, first - more), min(len(data), first + stride)
        # Bos stands where the document begins, or where nothing else is before what is predicted.
        ids = [*([BOS] if start in (0, first) else []), *data[start:stop]]
        expected.append(full_forward(predictor, ids)[-(stop - first) :])
    found = nats_of(predictor, tokens_of(data), f"sliding:{stride + more}:{stride}", chunk_length)
    assert np.array_equal(found, np.concatenate(expected))


@few
@given(texts, st.integers(0, 200))
def test_a_limit_cuts_between_characters_and_changes_nothing_before_it(text, limit):
    data, predictor = text.encode(), HashPredictor(256)
    tokens = tokens_of(data, limit)
    assert limit - 3 <= tokens.size <= limit or tokens.size == len(data) <= limit
    data[: tokens.size].decode()
    if tokens.size:
        assert np.array_equal(
            nats_of(predictor, tokens, chunk_length=7), nats_of(predictor, tokens_of(data))[: tokens.size]
        )


@few
@given(texts, st.integers(1, 40), st.sampled_from(["carried", "reset:9", "sliding:11:4"]), st.booleans())
def test_tokens_are_charged_to_exactly_their_bytes_in_any_chunks(
    byte_pairs, byte_pairs_with_bos, text, chunk_length, protocol, bos
):
    tokenizer = byte_pairs_with_bos if bos else byte_pairs
    tokens = tokens_of(text.encode(), None, tokenizer)
    predictor = HashPredictor(len(tokenizer))
    found = nats_of(predictor, tokens, protocol, chunk_length)
    assert len(found) == len(text.encode())
    assert np.array_equal(found, nats_of(predictor, tokens, protocol, 1000))


def test_nats_of_tokenised_text_sum_to_those_of_its_tokens(byte_pairs_with_bos):
    text = PROSE + SPECIAL
    predictor = HashPredictor(len(byte_pairs_with_bos))
    ids = byte_pairs_with_bos(text, add_special_tokens=False)["input_ids"]
    expected = full_forward(predictor, [byte_pairs_with_bos.bos_token_id, *ids])
    found = nats_of(predictor, tokens_of(text.encode(), None, byte_pairs_with_bos), chunk_length=5)
    assert len(found) == len(text.encode())
    assert math.isclose(found.sum(), expected.sum(), rel_tol=1e-12)


def test_the_nats_of_a_token_are_spread_evenly_over_its_bytes_and_those_of_a_character_over_its_tokens(byte_pairs):
    text = "The 漢The"
    tokens = TokenisedText(text, byte_pairs)
    ids = byte_pairs(text, add_special_tokens=False)["input_ids"]
    pieces = byte_pairs.convert_ids_to_tokens(ids)
    assert pieces[0] == "The" and len(pieces) > 4, "the character takes several tokens"
    nats = np.arange(1.0, len(ids) + 1)
    spread = tokens.per_byte(0, nats)
    assert np.allclose(spread[:3], nats[0] / 3)
    character = spread[4:7]
    assert np.allclose(character, character[0]) and np.isclose(spread.sum(), nats.sum())


def test_the_first_byte_of_a_byte_level_document_is_predicted_from_254():
    predictor = HashPredictor(256)
    alone = cross_entropy(predictor.logits(torch.tensor([[BOS]]))[0], torch.tensor([65])).item()
    assert nats_of(predictor, tokens_of(b"A")).tolist() == pytest.approx([alone], rel=1e-6)


def test_without_bos_the_first_token_costs_eight_bits_a_byte_and_the_others_are_predicted_from_it(byte_pairs):
    text = "The sea"
    ids = byte_pairs(text, add_special_tokens=False)["input_ids"]
    predictor = HashPredictor(len(byte_pairs))
    found = nats_of(predictor, tokens_of(text.encode(), None, byte_pairs))
    assert found[:3].tolist() == pytest.approx([BITS_8] * 3)
    assert found[3:].sum() == pytest.approx(full_forward(predictor, ids).sum())


def test_a_first_character_of_several_tokens_costs_eight_bits_a_byte_without_bos(byte_pairs):
    predictor = HashPredictor(len(byte_pairs))
    found = nats_of(predictor, tokens_of("😀a".encode(), None, byte_pairs))
    assert found[:4].tolist() == pytest.approx([BITS_8] * 4) and found[4] != pytest.approx(BITS_8)
    assert nats_of(predictor, tokens_of("😀".encode(), None, byte_pairs)).tolist() == pytest.approx([BITS_8] * 4)


def test_a_tokenizer_that_does_not_give_the_text_back_is_refused_by_name():
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, "sea": 2}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.name_or_path = "lower-case-words"
    with pytest.raises(RequestError, match=r"lower-case-words is not lossless: from character 0 on, 'The sea'"):
        TokenisedText("The sea", fast)


def test_spaces_that_a_tokenizer_leaves_out_of_its_offsets_are_bytes_all_the_same():
    tokenizer = Tokenizer(models.WordLevel({"▁the": 0, "▁sea": 1, "▁": 2}))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    assert len(nats_of(HashPredictor(3), tokens_of(b"the sea the", None, fast))) == len("the sea the")


def test_text_that_is_no_utf_8_is_refused_for_tokenizers_and_read_by_byte_level_models(byte_pairs):
    with pytest.raises(RequestError, match="byte 2 of the text is no UTF-8"):
        tokens_of(b"ab\xe9cd", None, byte_pairs)
    assert len(nats_of(HashPredictor(256), tokens_of(b"ab\xe9cd"))) == 5


def test_calls_stay_within_the_chunk_length():
    predictor = HashPredictor(256)
    data = bytes(range(250)) * 20
    for protocol in ("carried", "reset:700", "sliding:300:100"):
        nats_of(predictor, tokens_of(data), protocol, 300)
    assert predictor.largest_call <= 300


def test_large_vocabularies_take_shorter_calls():
    assert call_tokens(256) == 2048
    assert call_tokens(50_257) * 50_257 * 4 <= 2**27 < 2 * call_tokens(50_257) * 50_257 * 4


@pytest.mark.parametrize(
    "text", ["carry", "reset", "reset:0", "reset:-4", "reset:x", "sliding:8", "sliding:8:0", "carried:3", ""]
)
def test_unknown_protocols_are_refused_with_the_forms_that_there_are(text):
    with pytest.raises(RequestError, match=r"unknown protocol .*carried .*reset:K .*sliding:W:S"):
        parse_protocol(text)


def test_a_stride_beyond_its_window_is_refused_because_it_would_skip_bytes():
    with pytest.raises(RequestError, match=r"the stride \(9\) is longer than the window \(8\)"):
        parse_protocol("sliding:8:9")


def test_a_model_without_state_follows_resets_and_windows_but_cannot_be_carried():
    predictor = HashPredictor(256, carries_state=False)
    data = bytes(range(200)) * 30
    for protocol in ("reset:4000", "sliding:3000:1000"):
        assert np.array_equal(
            nats_of(predictor, tokens_of(data), protocol), nats_of(HashPredictor(256), tokens_of(data), protocol)
        )
        require_followable(predictor, parse_protocol(protocol), len(data))
    for ask in (
        lambda: nats_of(predictor, tokens_of(data)),
        lambda: require_followable(predictor, parse_protocol("carried"), len(data)),
    ):
        with pytest.raises(RunFailure, match="cannot follow protocol carried: it returns no state") as refused:
            ask()
        assert refused.value.reason == "protocol"


def test_a_state_beyond_the_free_memory_is_refused_with_what_it_takes_and_how_far_it_would_fit():
    predictor = HashPredictor(256)
    require_followable(predictor, parse_protocol("carried"), 10_000)
    with pytest.raises(
        RunFailure, match=r"state takes [\d.]+ GiB after 1,000,000,000,000 tokens, .* about [\d,]+ tokens"
    ):
        require_followable(predictor, parse_protocol("carried"), 10**12)
    require_followable(predictor, parse_protocol("reset:4096"), 10**12)


def test_learned_positions_limit_what_a_model_can_read():
    plugin = find_model("hf:gpt2")
    model = plugin.build(plugin.with_vocabulary(plugin.presets[plugin.default_preset], 256))
    positions = model.config.max_position_embeddings
    predictor = ModelPredictor(model, torch.device("cpu"), "fp32", None, lambda length: 0)
    require_followable(predictor, parse_protocol("carried"), positions)
    require_followable(predictor, parse_protocol(f"reset:{positions}"), 10**6)
    with pytest.raises(RunFailure, match=f"learned {positions:,} positions and would read {positions + 1:,}"):
        require_followable(predictor, parse_protocol("carried"), positions + 1)


@pytest.mark.parametrize("name", ["pmnet", "sliding-window", "transformer", "gated-convolution", "mamba"])
def test_every_model_carries_its_state_as_if_the_document_were_one_forward_pass(name):
    plugin = find_model(name)
    config = plugin.with_vocabulary(plugin.presets["tiny"], 256)
    predictor = ModelPredictor(
        plugin.build(config),
        torch.device("cpu"),
        "fp32",
        plugin.attention_reach(config),
        lambda length: plugin.state_bytes(config, length),
    )
    data = (PROSE + SPECIAL).encode() * 3
    expected = full_forward(predictor, [BOS, *data])
    require_followable(predictor, parse_protocol("carried"), len(data))
    for chunk_length in (64, 333):
        found = nats_of(predictor, tokens_of(data), "carried", chunk_length)
        assert len(found) == len(data) and np.allclose(found, expected, atol=2e-5)
    reset = nats_of(predictor, tokens_of(data), "reset:500", 333)
    assert np.allclose(reset[:500], expected[:500], atol=2e-5)
    assert np.allclose(reset[500:1000], full_forward(predictor, [BOS, *data[500:1000]]), atol=2e-5)
    assert not np.allclose(reset, expected, atol=1e-3), "the state is worth something"
