"""A model as lm-eval asks it: answers that depend on nothing but the request, of any length."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval_data import byte_model, predictor, token_model, tokenizer
from transformers import MambaConfig, PreTrainedModel

from pmnet_plugin.tokenizer import PMNetTokenizer
from seqbench.errors import RunFailure
from seqbench.evaluating.predictor import ModelPredictor
from seqbench_tasks.lm_eval_suites.language_model import PredictorLM, longest_input
from seqbench_tasks.lm_eval_suites.text_ids import ByteIds, TextIds, TokenizerIds

# A vocabulary of which one call may hold 64 tokens, the fewest of all.
SHORT_CALLS = 2**20
LONG = "It was a dark and stormy night. " * 8
PAIRS = [
    ("The cat sat on the", " mat"),
    ("The cat sat on the", " sea"),
    ("Where does the frog live?", " In the café, of course"),
    ("", "No context at all"),
    ("A space at the end ", "belongs to what follows"),
    (LONG, " It rained"),
]
PROMPTS = ["The cat", "Where does the whale live?\nAnswer:", "x", LONG]
GREEDY = {"until": ["\n\n", "."], "max_gen_toks": 12, "do_sample": False}


class Readers:
    """The same models again and again: they are not changed."""

    bytes_model = byte_model()
    text = tokenizer()
    tokens_model = token_model(len(text))


def by_bytes(batch_size: int = 4, vocab_size: int = 256, **options: Any) -> PredictorLM:
    return PredictorLM(predictor(Readers.bytes_model, reach=12), ByteIds(), vocab_size, batch_size, **options)


def by_tokens(batch_size: int = 4, vocab_size: int = 300, **options: Any) -> PredictorLM:
    return PredictorLM(predictor(Readers.tokens_model), TokenizerIds(Readers.text), vocab_size, batch_size, **options)


BOTH = pytest.mark.parametrize("make", [by_bytes, by_tokens])


def requests(kind: Any, arguments: Sequence[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, entry, place) for place, entry in enumerate(arguments)]


def likelihoods(model: Any) -> list[float]:
    return [answer for answer, _ in model.loglikelihood(requests("loglikelihood", PAIRS))]


def whole_texts(model: Any) -> list[float]:
    texts = [("Short.",), (LONG,), ("café",)]
    return model.loglikelihood_rolling(requests("loglikelihood_rolling", texts))


def written(model: Any, **options: Any) -> list[str]:
    return model.generate_until(requests("generate_until", [(prompt, {**GREEDY, **options}) for prompt in PROMPTS]))


@BOTH
def test_answers_do_not_depend_on_the_batch_size(make: Any) -> None:
    for measure in (likelihoods, whole_texts):
        expected = measure(make(1))
        assert measure(make(3)) == pytest.approx(expected, rel=1e-5)
        assert measure(make(64)) == pytest.approx(expected, rel=1e-5)
    assert written(make(1)) == written(make(2)) == written(make(64))


def test_whether_an_answer_is_the_greedy_one_is_told() -> None:
    """What the model writes is, and with another end it is not."""
    (text,) = by_bytes().generate_until(requests("generate_until", [("The cat", {"until": [], "max_gen_toks": 3})]))
    other = text[:-1] + ("?" if text[-1] != "?" else "!")
    answers = by_bytes().loglikelihood(requests("loglikelihood", [("The cat", text), ("The cat", other)]))
    assert [greedy for _, greedy in answers] == [True, False]


@BOTH
def test_an_input_longer_than_a_call_is_read_with_carried_state(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same answers as in one call."""
    whole = likelihoods(make()), whole_texts(make()), written(make())
    fresh: list[int] = []
    logits = ModelPredictor.logits

    def count(self: ModelPredictor, input_ids: Any, attention_mask: Any = None) -> Any:
        fresh.append(input_ids.numel())
        return logits(self, input_ids, attention_mask)

    monkeypatch.setattr(ModelPredictor, "logits", count)
    streaming = make(vocab_size=SHORT_CALLS)
    assert likelihoods(streaming) == pytest.approx(whole[0], rel=1e-5)
    assert whole_texts(streaming) == pytest.approx(whole[1], rel=1e-5)
    assert written(streaming) == whole[2]
    assert streaming.shortened == 0
    assert max(fresh) <= 64


def test_the_same_text_is_written_as_by_lm_eval_directly() -> None:
    bytes_directly = HFLM(
        pretrained=Readers.bytes_model,
        tokenizer=PMNetTokenizer(256, special_tokens_pattern="bos"),
        add_bos_token=True,
        max_length=4096,
        batch_size=3,
    )
    tokens_directly = HFLM(pretrained=Readers.tokens_model, tokenizer=Readers.text, batch_size=3)
    for ours, theirs in ((by_bytes(), bytes_directly), (by_tokens(), tokens_directly)):
        assert written(ours) == written(theirs)
        assert any(written(ours))


def test_a_second_bos_is_all_that_sets_rolling_likelihoods_apart_from_a_tokenizer_that_adds_one() -> None:
    """HFLM with add_bos_token puts a bos before the tokenizer's own, and predicts that one too."""
    directly = HFLM(
        pretrained=Readers.bytes_model,
        tokenizer=PMNetTokenizer(256, special_tokens_pattern="bos"),
        add_bos_token=True,
        max_length=4096,
    )
    (theirs,) = directly.loglikelihood_rolling(requests("loglikelihood_rolling", [("Short.",)]))
    tokens = torch.tensor([[254, 254, *b"Short."]])
    likelihood = predictor(Readers.bytes_model).logits(tokens[:, :-1]).log_softmax(-1)
    assert theirs == pytest.approx(likelihood.gather(-1, tokens[:, 1:, None]).sum().item(), rel=1e-5)
    tokens = tokens[:, 1:]
    likelihood = predictor(Readers.bytes_model).logits(tokens[:, :-1]).log_softmax(-1)
    (ours,) = by_bytes().loglikelihood_rolling(requests("loglikelihood_rolling", [("Short.",)]))
    assert ours == pytest.approx(likelihood.gather(-1, tokens[:, 1:, None]).sum().item(), rel=1e-5)


def test_a_window_reads_on_and_full_attention_keeps_to_the_length_that_it_declares() -> None:
    assert longest_input(predictor(Readers.bytes_model, reach=12)) is None
    assert longest_input(predictor(Readers.tokens_model)) == 512


def test_a_recurrent_model_that_declares_no_length_reads_on() -> None:
    class Recurrent(PreTrainedModel):
        config_class = MambaConfig

        def forward(self, input_ids: Any, **_: Any) -> Any:
            return type("Output", (), {"past_key_values": object()})

    assert longest_input(predictor(Recurrent(MambaConfig()))) is None


def test_a_model_without_state_reads_as_much_as_lm_eval_lets_it() -> None:
    class Stateless(PreTrainedModel):
        config_class = MambaConfig

        def forward(self, input_ids: Any, **_: Any) -> Any:
            return type("Output", (), {"past_key_values": None})

    assert longest_input(predictor(Stateless(MambaConfig()))) == 2048


@BOTH
def test_requests_that_are_cut_are_counted(make: Any) -> None:
    model = make(max_length=40)
    likelihoods(model), whole_texts(model), written(model)
    # Of pairs, whole texts and prompts; a prompt leaves room for 12 tokens.
    longer = {by_bytes: 3 + 1 + 2, by_tokens: 1 + 1 + 1}[make]
    assert (model.shortened, model.requests) == (longer, len(PAIRS) + 3 + len(PROMPTS))


def test_an_answer_that_does_not_fit_is_a_failure_that_says_what_to_do() -> None:
    with pytest.raises(RunFailure, match="an answer has 24 tokens, and the model reads 20 at most"):
        likelihoods(by_bytes(max_length=20))
    with pytest.raises(RunFailure, match="has 12 tokens generated, and the model reads 12 at most"):
        written(by_bytes(max_length=12))


def test_predictions_that_are_no_numbers_are_a_failure() -> None:
    broken = byte_model()
    with torch.no_grad():
        next(parameter for name, parameter in broken.named_parameters() if "embed" in name).fill_(torch.nan)
    model = PredictorLM(predictor(broken, reach=12), ByteIds(), 256, 4)
    with pytest.raises(RunFailure, match="NaN"):
        likelihoods(model)


def test_a_model_that_cannot_write_is_a_failure_only_where_text_is_wanted() -> None:
    class Reader(PreTrainedModel):
        config_class = MambaConfig

    model = PredictorLM(predictor(Reader(MambaConfig())), ByteIds(), 256, 4, max_length=400)
    with pytest.raises(RunFailure, match="Reader cannot generate text"):
        written(model)


def test_every_byte_of_a_text_comes_back() -> None:
    text = "NUL \0, é, 漢, 🂡"
    ids = ByteIds()
    assert ids.encode(text) == [254, *text.encode()]
    assert ids.encode(text, add_special_tokens=False) == list(text.encode())
    assert ids.decode(list(text.encode())) == text


def test_what_follows_the_end_of_a_text_is_left_out() -> None:
    ids: TextIds = ByteIds()
    assert ids.decode([*b"done", 255, 0, 0]) == "done"
    # A bos and half a character are no text either, nor is an id beyond the bytes.
    assert ids.decode([254, *b"caf", 0xC3, 300]) == "caf"


def test_half_of_a_surrogate_pair_is_a_failure_that_names_it() -> None:
    with pytest.raises(RunFailure, match=r"U\+D83D"):
        ByteIds().encode("broken \ud83d")
