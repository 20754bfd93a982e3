"""`generate` of transformers from the carried state, for every shipped model that has one of its own.

The oracle is the full forward pass: without padding, without a state, and without `generate`.
"""

import functools
from typing import Any

import pytest
import torch
from model_support import enliven, largest_difference, pad_rows, random_tokens
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, PreTrainedModel

from seqbench.contracts import with_settings
from seqbench.plugins.registry import find_model

MODELS = ["pmnet", "transformer", "sliding-window", "gated-convolution", "mamba"]
VOCABULARY, NEW = 23, 6
PROMPTS = random_tokens(2, 12, VOCABULARY)
ROWS = [random_tokens(1, length, VOCABULARY, seed=length)[0] for length in (14, 9, 3)]
# transformers warns that it does not know whether a prompt may be padded on the right.
pytestmark = [pytest.mark.transformers, pytest.mark.filterwarnings("ignore")]


@functools.cache
def lively(name: str) -> PreTrainedModel:
    """A tiny model whose next token depends clearly on all that came before."""
    plugin = find_model(name)
    torch.manual_seed(0)
    # A tied head prefers the token that it has just read.
    config = with_settings(plugin.presets["tiny"], {"tie_word_embeddings": "false"}, name)
    model = plugin.build(plugin.with_vocabulary(config, VOCABULARY)).eval()
    other = PROMPTS.clone()
    other[:, 4] = (other[:, 4] + 1) % VOCABULARY
    with torch.no_grad():
        while (
            largest_difference(model(PROMPTS).logits[:, -1], model(other).logits[:, -1]) < 0.3
            or len(greedy(model, PROMPTS[0])[12:].unique()) < 5
        ):
            enliven(model, 1.2)
    return model


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return lively(request.param)


@torch.no_grad()
def greedy(model: PreTrainedModel, prompt: Tensor, count: int = NEW) -> Tensor:
    """The prompt (length,) and its most probable continuation, each token from a full forward pass."""
    sequence = prompt
    for _ in range(count):
        sequence = torch.cat((sequence, model(sequence.unsqueeze(0)).logits[0, -1:].argmax(dim=-1)))
    return sequence


@torch.no_grad()
def beams(model: PreTrainedModel, prompt: Tensor, width: int, count: int) -> tuple[Tensor, Tensor]:
    """The `width` best continuations found by keeping `width` at each step, best first, and their log-probabilities."""
    sequences, scores = prompt.unsqueeze(0), torch.zeros(1)
    for _ in range(count):
        extended = scores.unsqueeze(1) + model(sequences).logits[:, -1].log_softmax(dim=-1)
        scores, places = extended.flatten().topk(width)
        parents, tokens = places // VOCABULARY, places % VOCABULARY
        sequences = torch.cat((sequences[parents], tokens.unsqueeze(1)), dim=1)
    return sequences, scores


def generate(model: PreTrainedModel, prompt: Tensor, **options: Any) -> Any:
    return model.generate(prompt, **{"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0, **options})


class Fed:
    """The numbers of tokens that a model is fed, call by call."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.lengths: list[int] = []
        self.handle = model.register_forward_pre_hook(self.record, with_kwargs=True)

    def record(self, module: object, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.lengths.append((arguments[0] if arguments else options["input_ids"]).shape[1])

    def __enter__(self) -> "Fed":
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.remove()


def test_greedy_search_takes_the_most_probable_token_of_each_full_forward(model: PreTrainedModel) -> None:
    assert torch.equal(generate(model, PROMPTS), torch.stack([greedy(model, prompt) for prompt in PROMPTS]))


@pytest.mark.parametrize("published", [True, False])
def test_the_prompt_is_fed_once_and_then_one_token_a_step_whatever_the_config_says(
    model: PreTrainedModel, published: bool
) -> None:
    """Published configs say `use_cache: false`, and mean training."""
    model.config.use_cache = model.generation_config.use_cache = published
    with Fed(model) as fed:
        generate(model, PROMPTS)
        model.generate(PROMPTS, generation_config=GenerationConfig(max_new_tokens=3, do_sample=False, pad_token_id=0))
        generate(model, PROMPTS[:1], num_beams=2, max_new_tokens=3)
    assert fed.lengths == [12] + [1] * (NEW - 1) + 2 * [12, 1, 1]


def test_without_the_state_the_tokens_are_the_same_and_the_sequence_is_fed_again_and_again(
    model: PreTrainedModel,
) -> None:
    with Fed(model) as fed:
        found = generate(model, PROMPTS, use_cache=False, max_new_tokens=3)
    assert fed.lengths == [12, 13, 14]
    assert torch.equal(found, generate(model, PROMPTS, max_new_tokens=3))


@pytest.mark.parametrize(
    ("fronts", "width", "options"),
    [
        ((0, 5, 11), 14, {}),
        ((0, 0, 0), 14, {}),
        ((3, 8, 14), 18, {"prefill_chunk_size": 4}),
        ((0, 2, 7), 14, {"use_cache": False}),
    ],
    ids=["left", "right", "everywhere, in chunks", "either side, without a state"],
)
def test_prompts_of_different_length_go_on_as_each_alone(
    model: PreTrainedModel, fronts: tuple[int, ...], width: int, options: dict[str, Any]
) -> None:
    tokens, mask = pad_rows(ROWS, fronts, width)
    found = generate(model, tokens, attention_mask=mask, **options)
    assert torch.equal(found[:, :width], tokens)
    for row, own in zip(ROWS, found[:, width:], strict=True):
        assert torch.equal(own, greedy(model, row)[len(row) :])


def test_the_padding_id_is_a_token_like_others_where_no_mask_says_otherwise(model: PreTrainedModel) -> None:
    """Padding of PMNet's tokenizer is id 0, which is also the byte NUL."""
    prompt = PROMPTS[0].clone()
    prompt[[0, 6]] = 7
    assert torch.equal(generate(model, prompt.unsqueeze(0), pad_token_id=7)[0], greedy(model, prompt))


@pytest.mark.parametrize("width", [2, 4])
def test_beams_are_those_of_a_search_by_full_forwards(model: PreTrainedModel, width: int) -> None:
    """Rows of the state are exchanged at each step; the prompts of the batch have different lengths."""
    tokens, mask = pad_rows(ROWS, (0, 5, 11), 14)
    found = generate(
        model,
        tokens,
        attention_mask=mask,
        num_beams=width,
        num_return_sequences=width,
        max_new_tokens=5,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    for index, row in enumerate(ROWS):
        expected, scores = beams(model, row, width, 5)
        own = slice(index * width, (index + 1) * width)
        assert torch.equal(found.sequences[own, 14:], expected[:, len(row) :])
        assert largest_difference(found.sequences_scores[own], scores) < 1e-4


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True},
        {"do_sample": True, "num_return_sequences": 3},
        {"do_sample": True, "num_beams": 3, "num_return_sequences": 2},
        {"num_beams": 3, "eos_token_id": [2, 5, 7, 11], "length_penalty": 2.0},
    ],
    ids=["sampling", "several samples", "beams with sampling", "beams that end"],
)
def test_the_state_draws_the_same_tokens_as_the_whole_sequence(model: PreTrainedModel, options: dict[str, Any]) -> None:
    tokens, mask = pad_rows(ROWS, (0, 5, 11), 14)
    found = []
    for use_cache in (True, False):
        torch.manual_seed(1)
        found.append(generate(model, tokens, attention_mask=mask, use_cache=use_cache, **options))
    assert torch.equal(*found)
    assert found[0].shape[0] == 3 * options.get("num_return_sequences", 1)


def test_samples_differ_and_the_best_of_one_is_greedy(model: PreTrainedModel) -> None:
    samples = generate(model, PROMPTS[:1], do_sample=True, num_return_sequences=4)
    assert len({tuple(sample.tolist()) for sample in samples}) > 1
    best = generate(model, PROMPTS, do_sample=True, top_k=1)
    assert torch.equal(best, generate(model, PROMPTS))


def test_a_row_ends_at_its_end_token_and_is_padded_while_others_go_on(model: PreTrainedModel) -> None:
    free = generate(model, PROMPTS)
    end = next(token for token in free[0, 13:].tolist() if token not in free[1, 12:])
    found = generate(model, PROMPTS, eos_token_id=end, pad_token_id=22)
    last = free[0].tolist().index(end, 12)
    assert torch.equal(found[0, : last + 1], free[0, : last + 1])
    assert set(found[0, last + 1 :].tolist()) <= {22}
    assert torch.equal(found[1], free[1])
    alone = generate(model, PROMPTS[:1], eos_token_id=end)
    assert alone.shape[1] == last + 1


def first_turn(model: PreTrainedModel, ragged: bool) -> tuple[Tensor, Tensor, Any]:
    """A finished first answer, its mask, and the state after it."""
    tokens, mask = pad_rows(ROWS, (0, 5, 11), 14) if ragged else (PROMPTS, torch.ones_like(PROMPTS))
    output = generate(model, tokens, attention_mask=mask, return_dict_in_generate=True, max_new_tokens=4)
    return output.sequences, torch.cat((mask, mask.new_ones(len(mask), 4)), dim=1), output.past_key_values


@pytest.mark.parametrize(
    ("given", "ragged", "options"),
    [
        ("whole sequence", False, {}),
        ("whole sequence", True, {"num_beams": 2}),
        ("whole sequence", True, {"prefill_chunk_size": 2}),
        ("new tokens", True, {}),
        ("new tokens", False, {"num_beams": 2}),
    ],
    ids=str,
)
def test_a_conversation_goes_on_from_its_state_and_feeds_what_is_new(
    model: PreTrainedModel, given: str, ragged: bool, options: dict[str, Any]
) -> None:
    """The last token of an answer has not been fed yet, so it belongs to what is new."""
    sequence, mask, state = first_turn(model, ragged)
    more = random_tokens(len(sequence), 5, VOCABULARY, seed=4)
    whole = torch.cat((sequence, more), dim=1)
    mask = torch.cat((mask, torch.ones_like(more)), dim=1)
    expected = generate(model, whole, attention_mask=mask, **options)[:, whole.shape[1] :]
    prompt = whole if given == "whole sequence" else whole[:, -6:]
    with Fed(model) as fed:
        found = generate(model, prompt, attention_mask=mask, past_key_values=state, **options)
    assert torch.equal(found[:, prompt.shape[1] :], expected)
    first = [2, 2, 2] if "prefill_chunk_size" in options else [6]
    assert fed.lengths == first + [1] * (NEW - 1)


def test_a_conversation_without_padding_needs_no_mask(model: PreTrainedModel) -> None:
    sequence, _, state = first_turn(model, ragged=False)
    whole = torch.cat((sequence, random_tokens(2, 3, VOCABULARY, seed=4)), dim=1)
    assert torch.equal(generate(model, whole, past_key_values=state), generate(model, whole))


def test_after_generate_the_state_has_seen_all_but_the_last_token(model: PreTrainedModel) -> None:
    sequence, _, state = first_turn(model, ragged=False)
    assert state.seen.tolist() == [sequence.shape[1] - 1] * 2
    with torch.no_grad():
        following = model(sequence[:, -1:], past_key_values=state).logits[:, -1]
        assert largest_difference(following, model(sequence).logits[:, -1]) < 1e-4


def test_a_state_that_does_not_go_with_the_prompt_is_refused(model: PreTrainedModel) -> None:
    sequence, mask, state = first_turn(model, ragged=True)
    with pytest.raises(ValueError, match=r"have seen \[17, 12, 6\] tokens: give an attention_mask"):
        generate(model, torch.cat((sequence, sequence), dim=1), past_key_values=state)
    with pytest.raises(ValueError, match=r"\[18, 13, 7\] come before the given ones; give the missing ones too"):
        longer = torch.cat((mask, mask.new_ones(3, 2)), dim=1)
        generate(model, sequence[:, -2:], attention_mask=longer, past_key_values=state)
    with pytest.raises(ValueError, match="row 0 has no token to go on from"):
        generate(model, sequence[:, :-1], attention_mask=mask[:, :-1], past_key_values=state)
    with pytest.raises(ValueError, match="the state holds 3 rows and the prompt 2"):
        generate(model, PROMPTS, past_key_values=state)
    with pytest.raises(ValueError, match="the state to go on from is a DynamicCache"):
        generate(model, PROMPTS, past_key_values=DynamicCache())


def test_a_prompt_of_nothing_but_padding_is_refused(model: PreTrainedModel) -> None:
    mask = torch.ones_like(PROMPTS)
    mask[1] = 0
    with pytest.raises(ValueError, match="row 1 has no token to go on from: its prompt is empty"):
        generate(model, PROMPTS, attention_mask=mask)


def test_methods_that_take_tokens_back_are_refused(model: PreTrainedModel) -> None:
    for options in ({"prompt_lookup_num_tokens": 3}, {"assistant_model": lively("transformer")}):
        with pytest.raises(ValueError, match=r"only supports .*'beam_search'.* mode 'GenerationMode.ASSISTED"):
            generate(model, PROMPTS[:1], **options)
    with pytest.raises(ValueError, match=r"only supports .* mode 'GenerationMode.CONTRASTIVE"):
        generate(model, PROMPTS[:1], penalty_alpha=0.6, top_k=4, trust_remote_code=True)
    with pytest.raises(ValueError, match="cannot draft for another model"):
        generate(model, PROMPTS, generation_config=assistant_config())


def assistant_config() -> GenerationConfig:
    """What transformers makes of the config of a model that drafts for another one."""
    config = GenerationConfig(max_new_tokens=3)
    config.is_assistant = True
    return config


def test_arguments_that_cannot_be_followed_are_refused(model: PreTrainedModel) -> None:
    with pytest.raises(ValueError, match="cache_implementation='static' is not for"):
        generate(model, PROMPTS, cache_implementation="static")
    with pytest.raises(ValueError, match="prefill_chunk_size needs the carried state"):
        generate(model, PROMPTS, prefill_chunk_size=4, use_cache=False)
    with pytest.raises(ValueError, match="a state to go on from is not for use_cache=False"):
        generate(model, PROMPTS, past_key_values=model.empty_state(), use_cache=False)
    for name, value in {"output_attentions": True, "position_ids": torch.arange(12).unsqueeze(0)}.items():
        with pytest.raises(TypeError, match=f"the model has no argument '{name}'"):
            generate(model, PROMPTS, **{name: value})
    for mask in (torch.ones(2, 5), torch.zeros(2, 5)):
        with pytest.raises(ValueError, match="the attention_mask has 5 places and the prompt 12"):
            generate(model, PROMPTS, attention_mask=mask)
    with pytest.raises(ValueError, match="max_new_token'"):
        generate(model, PROMPTS, max_new_token=3)
