"""PMNet's byte tokenizer: what it encodes, what it decodes, and what it refuses."""

import copy
import json
import pickle
import shutil
import string
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pmnet_support import lively_pmnet
from transformers import AutoTokenizer, TextStreamer, pipeline

import pmnet_plugin
from pmnet_plugin import PMNetConfig, PMNetTokenizer
from seqbench.errors import RequestError

PUBLISHED = Path(__file__).parent.parent / "golden" / "published_checkpoint"
PAD, BOS, EOS = 0, 254, 255
TOKENIZER = PMNetTokenizer()

texts = st.text(max_size=40)
byte_strings = st.binary(max_size=40)


def plain(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


@given(texts)
def test_ids_are_the_bytes_of_utf8_between_bos_and_eos(text: str) -> None:
    data = list(text.encode())
    assert TOKENIZER(text) == {"input_ids": [BOS, *data, EOS], "attention_mask": [1] * (len(data) + 2)}
    assert plain(text) == data


@given(texts)
def test_a_text_survives_encoding_and_decoding(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER(text)["input_ids"], skip_special_tokens=True) == text
    assert TOKENIZER.decode(plain(text)) == text
    assert TOKENIZER.decode(plain(text), skip_special_tokens=True) == text


@given(byte_strings)
def test_bytes_that_are_no_utf8_are_dropped_and_the_others_kept(data: bytes) -> None:
    """bos and eos are shown by name unless they are to be skipped."""
    ids = [value for value in data if value not in (BOS, EOS)]
    assert TOKENIZER.decode(ids) == bytes(ids).decode("utf-8", errors="ignore")


@given(st.lists(st.integers(-100, 1000), max_size=40))
def test_any_ids_can_be_decoded_and_those_that_are_no_byte_leave_no_trace(ids: list[int]) -> None:
    known = [index for index in ids if 0 <= index < 256]
    for skip in (False, True):
        without = [index for index in ids if index in known or index in (BOS, EOS)]
        decoded = TOKENIZER.decode(ids, skip_special_tokens=skip)
        assert decoded.replace("\0", "") == TOKENIZER.decode(without, skip_special_tokens=skip).replace("\0", "")


def test_special_tokens_are_shown_unless_they_are_to_be_skipped() -> None:
    ids = TOKENIZER("hé")["input_ids"]
    assert TOKENIZER.decode(ids) == "<bos>hé<eos>"
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "hé"
    assert TOKENIZER.batch_decode([ids, ids], skip_special_tokens=True) == ["hé", "hé"]
    assert TOKENIZER.decode(torch.tensor(ids), skip_special_tokens=True) == "hé"
    assert TOKENIZER.decode(104) == "h"


@pytest.mark.parametrize("side", ["left", "right"])
@given(st.lists(texts, min_size=1, max_size=5))
def test_masks_say_what_is_padding_and_decoding_leaves_it_out(side: str, batch: list[str]) -> None:
    """Also where a text begins or ends with NUL, whose id padding shares."""
    batch = [*batch, "\0", "\0a\0\0"]
    encoded = TOKENIZER(batch, padding=True, padding_side=side)
    assert TOKENIZER.batch_decode(encoded["input_ids"], skip_special_tokens=True) == batch
    for text, ids, mask in zip(batch, encoded["input_ids"], encoded["attention_mask"], strict=True):
        assert len(ids) == len(mask) == max(len(other.encode()) for other in batch) + 2
        assert [index for index, real in zip(ids, mask, strict=True) if real] == [BOS, *text.encode(), EOS]
        assert {index for index, real in zip(ids, mask, strict=True) if not real} <= {PAD}
        assert mask == sorted(mask, reverse=side == "right")


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([0, 0, 254, 65, 255], "A"),
        ([254, 65, 255, 0, 0], "A"),
        ([254, 65, 255, 0, 0, 254, 66, 255, 0], "AB"),
        ([65, 255, 0, 0], "A"),
        ([254, 0, 65, 0, 0], "\0A\0\0"),
        ([65, 0, 66], "A\0B"),
        ([0, 65], "\0A"),
        ([0, 0], "\0\0"),
        ([254, 65, 0, 254, 66], "A\0B"),
        ([65, 255, 0, 66], "A\0B"),
    ],
    ids=str,
)
def test_only_zeros_where_no_text_can_be_are_taken_for_padding(ids: list[int], text: str) -> None:
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == text
    skipped = TOKENIZER.get_special_tokens_mask(ids, already_has_special_tokens=True)
    assert bytes(index for index, skip in zip(ids, skipped, strict=True) if not skip).decode() == text


def test_zeros_are_decoded_as_nul_when_nothing_is_to_be_skipped() -> None:
    assert TOKENIZER.decode([0, 254, 65, 0, 255, 0]) == "\0<bos>A\0<eos>\0"


@given(texts, texts, st.sampled_from(["<bos>", "<eos>", "<0x00>", "<unused300>"]))
def test_the_name_of_a_special_token_inside_a_text_is_text(before: str, after: str, name: str) -> None:
    ids = plain(before + name + after)
    assert ids == list((before + name + after).encode())
    assert not {BOS, EOS} & set(ids)
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == before + name + after


def test_the_names_are_read_as_special_tokens_on_request() -> None:
    assert TOKENIZER("a<eos>b", add_special_tokens=False, split_special_tokens=False)["input_ids"] == [97, EOS, 98]


def test_truncation_keeps_bos_and_eos() -> None:
    encoded = TOKENIZER(["abcdef", "x"], truncation=True, max_length=4, padding=True, return_tensors="pt")
    assert encoded["input_ids"].tolist() == [[BOS, 97, 98, EOS], [BOS, 120, EOS, PAD]]
    assert encoded["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    left = PMNetTokenizer(truncation_side="left")
    assert left("abcdef", truncation=True, max_length=4)["input_ids"] == [BOS, 101, 102, EOS]


def test_prompts_can_be_encoded_without_the_eos(tmp_path: Path) -> None:
    tokenizer = PMNetTokenizer(special_tokens_pattern="bos")
    tokenizer.save_pretrained(tmp_path)
    for one in (tokenizer, PMNetTokenizer.from_pretrained(tmp_path)):
        assert one("ab")["input_ids"] == [BOS, 97, 98]
        assert one("ab", return_special_tokens_mask=True)["special_tokens_mask"] == [1, 0, 0]


@pytest.mark.parametrize("size", [256, 300, 384])
def test_the_vocabulary_is_padded_to_the_models(size: int) -> None:
    tokenizer = PMNetTokenizer(vocab_size=size)
    vocabulary = tokenizer.get_vocab()
    assert len(tokenizer) == tokenizer.vocab_size == len(vocabulary) == size
    assert sorted(vocabulary.values()) == list(range(size))
    tokens = tokenizer.convert_ids_to_tokens(list(range(size)))
    assert tokenizer.convert_tokens_to_ids(tokens) == list(range(size))
    assert all(vocabulary[token] == index for index, token in enumerate(tokens))


def test_printable_ascii_is_its_own_token_and_other_bytes_are_hexadecimal() -> None:
    assert all(TOKENIZER.convert_tokens_to_ids(letter) == ord(letter) for letter in string.printable[:95])
    assert TOKENIZER.tokenize("é\n") == ["<0xC3>", "<0xA9>", "<0x0A>"]
    assert TOKENIZER.convert_tokens_to_ids(["<bos>", "<eos>", "é"]) == [BOS, EOS, None]


def test_the_special_ids_are_the_published_ones() -> None:
    assert (TOKENIZER.pad_token_id, TOKENIZER.bos_token_id, TOKENIZER.eos_token_id) == (PAD, BOS, EOS)
    assert sorted(TOKENIZER.all_special_ids) == [PAD, BOS, EOS]


def test_tokens_that_are_added_later_follow_the_vocabulary(tmp_path: Path) -> None:
    tokenizer = PMNetTokenizer(vocab_size=300)
    assert tokenizer.add_special_tokens({"extra_special_tokens": ["<tool>"]}) == 1
    tokenizer.save_pretrained(tmp_path)
    for one in (tokenizer, PMNetTokenizer.from_pretrained(tmp_path)):
        assert (len(one), one.vocab_size, one.convert_tokens_to_ids("<tool>")) == (301, 300, 300)
        assert one.decode([97, 300, 98]) == "a<tool>b"
        assert one.decode([97, 300, 98], skip_special_tokens=True) == "ab"


def behaviour(tokenizer: Any) -> tuple[Any, ...]:
    """What a user sees of a tokenizer."""
    batch = tokenizer(["a\0é<eos>", "b"], padding=True)
    return (type(tokenizer), tokenizer.get_vocab(), len(tokenizer), batch["input_ids"], batch["attention_mask"])


@pytest.mark.parametrize("loader", [PMNetTokenizer, AutoTokenizer])
def test_a_saved_tokenizer_is_loaded_as_it_was(loader: Any, tmp_path: Path) -> None:
    tokenizer = PMNetTokenizer(vocab_size=300, padding_side="left")
    tokenizer.save_pretrained(tmp_path)
    if loader is AutoTokenizer:
        PMNetConfig(vocab_size=300).save_pretrained(tmp_path)
    loaded = loader.from_pretrained(tmp_path)
    assert behaviour(loaded) == behaviour(tokenizer)
    assert loaded.padding_side == "left"
    loaded.save_pretrained(tmp_path / "again")
    first, second = (folder / "tokenizer_config.json" for folder in (tmp_path, tmp_path / "again"))
    kept = ("vocab_size", "added_tokens_decoder", "padding_side", "split_special_tokens", "bos_token")
    assert all(json.loads(first.read_text())[name] == json.loads(second.read_text())[name] for name in kept)


def test_a_tokenizer_that_pads_with_eos_can_be_saved_too(tmp_path: Path) -> None:
    tokenizer = PMNetTokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path)
    loaded = PMNetTokenizer.from_pretrained(tmp_path)
    assert loaded.pad_token_id == EOS
    assert loaded(["a", "bc\0"], padding=True)["input_ids"] == [[BOS, 97, EOS, EOS, EOS], [BOS, 98, 99, 0, EOS]]


def test_copies_and_pickles_behave_like_the_original() -> None:
    for other in (copy.deepcopy(TOKENIZER), pickle.loads(pickle.dumps(TOKENIZER))):
        assert behaviour(other) == behaviour(TOKENIZER)


@pytest.mark.parametrize("loader", [PMNetTokenizer, AutoTokenizer])
def test_a_checkpoint_without_tokenizer_files_has_one_of_its_vocabulary(loader: Any, tmp_path: Path) -> None:
    """As the published checkpoints are; their config names code of their own, which is never run."""
    assert behaviour(loader.from_pretrained(PUBLISHED)) == behaviour(PMNetTokenizer(vocab_size=384))
    config = json.loads((PUBLISHED / "config.json").read_text())
    code = {
        "AutoTokenizer": ["tokenization_pmnet.ByteTokenizer", None],
        "AutoConfig": "configuration_pmnet.PMNetConfig",
    }
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 256, "auto_map": code}))
    assert behaviour(loader.from_pretrained(tmp_path)) == behaviour(PMNetTokenizer(vocab_size=256))


def test_the_package_exports_what_the_auto_classes_know() -> None:
    assert {"PMNetConfig", "PMNetModel", "PMNetForCausalLM", "PMNetTokenizer"} <= set(pmnet_plugin.__all__)
    assert all(hasattr(pmnet_plugin, name) for name in pmnet_plugin.__all__)


@pytest.mark.parametrize("size", [0, 255, "384", None])
def test_a_vocabulary_without_room_for_all_bytes_is_refused(size: Any, tmp_path: Path) -> None:
    if size is None:
        PMNetConfig(vocab_size=34).save_pretrained(tmp_path)
        with pytest.raises(RequestError, match=r"config\.json: .*vocab_size of at least 256, not 34"):
            PMNetTokenizer.from_pretrained(tmp_path)
    else:
        with pytest.raises(RequestError, match="vocab_size of at least 256"):
            PMNetTokenizer(vocab_size=size)


def test_special_tokens_need_names_of_their_own() -> None:
    with pytest.raises(RequestError, match="must differ from other tokens"):
        PMNetTokenizer(bos_token="A")
    renamed = PMNetTokenizer(bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    assert renamed.decode(renamed("a\0")["input_ids"]) == "<s>a\0</s>"
    assert renamed.convert_tokens_to_ids(["<s>", "</s>", "<pad>"]) == [BOS, EOS, PAD]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"vocab_size": 256}, "vocab_size is 384 in the tokenizer and 256 in the model"),
        ({"bos_token_id": 1}, "bos_token_id is 254 in the tokenizer and 1 in the model"),
        ({"eos_token_id": [2, 3]}, r"eos_token_id is 255 in the tokenizer and \[2, 3\] in the model"),
    ],
)
@pytest.mark.parametrize("loader", [PMNetTokenizer, AutoTokenizer])
def test_a_tokenizer_that_does_not_fit_its_model_is_refused(
    changes: dict[str, Any], named: str, loader: Any, tmp_path: Path
) -> None:
    config = PMNetConfig(**changes)
    with pytest.raises(RequestError, match=r"tokenizer_config\.json .*config\.json: " + named):
        TOKENIZER.check_matches(config)
    config.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    with pytest.raises(RequestError, match=rf"{tmp_path}/tokenizer_config\.json .*config\.json: " + named):
        loader.from_pretrained(tmp_path)


def test_ids_that_a_config_leaves_open_or_lists_fit() -> None:
    TOKENIZER.check_matches(PMNetConfig())
    TOKENIZER.check_matches(PMNetConfig(bos_token_id=None, eos_token_id=[10, 255], pad_token_id=3))


def test_special_tokens_at_other_ids_are_refused(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    stored = json.loads(path.read_text())
    stored["added_tokens_decoder"]["1"] = stored["added_tokens_decoder"].pop("254")
    path.write_text(json.dumps(stored))
    with pytest.raises(RequestError, match=rf"{path}: bos_token '<bos>' has the id 1, .* it is 254"):
        PMNetTokenizer.from_pretrained(tmp_path)


def test_truncated_files_are_named(tmp_path: Path) -> None:
    shutil.copy(PUBLISHED / "config.json", tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"vocab_size": ')
    with pytest.raises(RequestError, match=r"tokenizer_config\.json is not valid JSON"):
        PMNetTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "config.json").write_text('{"vocab_size": ')
    with pytest.raises(RequestError, match=r"config\.json is not valid JSON"):
        PMNetTokenizer.from_pretrained(tmp_path)


def test_half_a_surrogate_pair_is_refused_with_its_place() -> None:
    with pytest.raises(RequestError, match=r"U\+D800 at character 2"):
        TOKENIZER("ab\ud800")


def test_generated_bytes_are_shown_as_soon_as_they_are_characters(capsys: pytest.CaptureFixture[str]) -> None:
    streamer = TextStreamer(TOKENIZER, skip_special_tokens=True)
    for index in [*"né ".encode(), EOS, PAD]:
        streamer.put(torch.tensor([index]))
    streamer.end()
    assert capsys.readouterr().out == "né \n"


def test_a_pipeline_continues_prompts_of_different_length() -> None:
    """Padded on the left in one batch, or alone, prompts are continued alike."""
    model = lively_pmnet(vocab_size=256)
    generate = pipeline("text-generation", model=model, tokenizer=PMNetTokenizer(256, special_tokens_pattern="bos"))
    prompts = ["a\0é", "", "a longer prompt"]
    together = generate(prompts, max_new_tokens=9, do_sample=False, batch_size=3)
    for prompt, (found,) in zip(prompts, together, strict=True):
        ids_of_prompt = torch.tensor([[BOS, *prompt.encode()]])
        mask = torch.ones_like(ids_of_prompt)
        continued = model.generate(ids_of_prompt, attention_mask=mask, max_new_tokens=9, do_sample=False)
        new = bytes(index for index in continued[0, ids_of_prompt.shape[1] :].tolist() if index not in (BOS, EOS))
        assert found["generated_text"] == prompt + new.decode("utf-8", errors="ignore")


def test_lm_eval_scores_a_continuation_after_bos_and_context() -> None:
    """HFLM encodes context and continuation together and cuts: the eos must not be in the way."""
    hflm = pytest.importorskip("lm_eval.models.huggingface").HFLM
    model = lively_pmnet(vocab_size=256)
    tokenizer = PMNetTokenizer(vocab_size=256, special_tokens_pattern="bos")
    harness = hflm(pretrained=model, tokenizer=tokenizer, max_length=512, add_bos_token=True, batch_size=2)
    pairs = [("Was für ein", " Tag"), ("a\0", "x\0y"), ("", "ab")]
    found = harness.loglikelihood([SimpleNamespace(args=pair) for pair in pairs], disable_tqdm=True)
    for (context, continuation), (log_likelihood, _) in zip(pairs, found, strict=True):
        ids = torch.tensor([[BOS, *(context + continuation).encode()]])
        with torch.no_grad():
            scores = model(ids).logits.log_softmax(dim=-1)[0, :-1].gather(1, ids[0, 1:, None])
        assert log_likelihood == pytest.approx(scores[-len(continuation.encode()) :].sum().item(), abs=1e-3)
