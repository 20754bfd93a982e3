"""The call of a model: the carried state under both names that transformers has had for it, and nothing swallowed."""

import functools
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from model_support import largest_difference, random_tokens
from torch import nn
from transformers import PreTrainedModel

import seqbench.scaffold
from seqbench.evaluating.streaming import stream
from seqbench.nn import STATE_NAME, STATE_NAMES, CausalOutput, state_argument, state_of, transformers_call
from seqbench.plugins.registry import find_model

pytestmark = [pytest.mark.transformers, pytest.mark.filterwarnings("ignore")]
SCAFFOLD = "my_model:MyModelPlugin"
NAMES = ["pmnet", "transformer", "sliding-window", "gated-convolution", "mamba", "mamba2", "hf:llama", SCAFFOLD]
VOCABULARY = 23
TOKENS = random_tokens(2, 12, VOCABULARY)


@pytest.fixture(scope="module", autouse=True)
def scaffold_on_the_path() -> Iterator[None]:
    folder = str(Path(seqbench.scaffold.__file__).parent / "model")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)
    # Or `bench new` would find the name taken, in a later test of this process.
    sys.modules.pop(SCAFFOLD.partition(":")[0], None)


@functools.cache
def built(name: str) -> PreTrainedModel:
    plugin = find_model(name)
    torch.manual_seed(0)
    return plugin.build(plugin.with_vocabulary(plugin.presets["tiny"], VOCABULARY)).eval()


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return built(request.param)


@torch.no_grad()
def begun(model: PreTrainedModel) -> Any:
    """The state behind the first seven tokens."""
    return state_of(model(TOKENS[:, :7], use_cache=True))


@torch.no_grad()
def test_the_state_continues_under_either_name_and_has_both_in_the_output(model: PreTrainedModel) -> None:
    whole = model(TOKENS).logits[:, 7:]
    assert largest_difference(model(TOKENS[:, 7:]).logits, whole) > 1e-4
    for name in STATE_NAMES:
        output = model(TOKENS[:, 7:], use_cache=True, **{name: begun(model)})
        assert largest_difference(output.logits, whole) < 1e-5
        assert output.cache is output.past_key_values is not None
        assert output["cache"] is output["past_key_values"] is output.get("cache") is output.cache
        assert "cache" in output and "past_key_values" in output


@torch.no_grad()
def test_without_a_state_the_output_has_none_under_either_name(model: PreTrainedModel) -> None:
    output = model(TOKENS)
    assert output.cache is None and output.past_key_values is None
    assert "cache" not in output and "past_key_values" not in output and output.get("cache", 5) == 5


@torch.no_grad()
def test_two_states_under_two_names_are_refused_and_one_state_under_both_is_not(model: PreTrainedModel) -> None:
    with pytest.raises(TypeError, match="past_key_values and cache are two names of one argument"):
        model(TOKENS[:, 7:], past_key_values=begun(model), cache=begun(model))
    state = begun(model)
    logits = model(TOKENS[:, 7:], past_key_values=state, cache=state).logits
    assert largest_difference(logits, model(TOKENS).logits[:, 7:]) < 1e-5


@pytest.mark.parametrize("name", ["attention_masks", "past_key_value", "num_logits_to_keep"])
def test_an_argument_that_the_model_does_not_have_is_refused_by_name(model: PreTrainedModel, name: str) -> None:
    with pytest.raises(TypeError, match=f"has no argument '{name}'"):
        model(TOKENS, **{name: torch.ones_like(TOKENS)})
    assert model(TOKENS, **{name: None}).logits.shape == (2, 12, VOCABULARY)


def test_a_tuple_is_returned_on_request(model: PreTrainedModel) -> None:
    loss, logits, _ = model(TOKENS, labels=TOKENS, use_cache=True, return_dict=False)
    assert loss.dim() == 0 and logits.shape == (2, 12, VOCABULARY)


def test_the_loss_is_over_all_labels_whatever_logits_are_kept(model: PreTrainedModel) -> None:
    whole = model(TOKENS, labels=TOKENS)
    kept = model(TOKENS, labels=TOKENS, logits_to_keep=2)
    assert torch.equal(kept.loss, whole.loss) and torch.equal(kept.logits, whole.logits[:, -2:])
    with pytest.raises(ValueError, match="logits_to_keep is -1"):
        model(TOKENS, logits_to_keep=-1)


@pytest.mark.parametrize("beams", [1, 2])
def test_generate_goes_on_from_a_state_under_either_name_and_returns_it_under_both(
    model: PreTrainedModel, beams: int
) -> None:
    options = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0, "num_beams": beams}
    expected = model.generate(TOKENS, **options)
    for name in STATE_NAMES:
        # Of as many rows as the beams make of the prompt: transformers' own models do not repeat them.
        rows = TOKENS[:, :7].repeat_interleave(beams, dim=0)
        state = state_of(model(rows, use_cache=True))
        found = model.generate(TOKENS, return_dict_in_generate=True, **options, **{name: state})
        assert torch.equal(found.sequences, expected)
        assert found.cache is found.past_key_values is found["cache"] is not None
    with pytest.raises(TypeError, match="two names of one argument"):
        model.generate(TOKENS, past_key_values=begun(model), cache=begun(model), **options)


def test_a_stream_goes_on_from_the_state(model: PreTrainedModel) -> None:
    parts = [step.logits for step in stream(model, TOKENS, chunk_length=5)]
    assert largest_difference(torch.cat(parts, dim=1), model(TOKENS).logits) < 1e-5


def test_the_signature_tells_both_names_and_no_keywords_that_would_be_swallowed() -> None:
    parameters = inspect.signature(built("transformer").forward).parameters
    assert {*STATE_NAMES} <= parameters.keys()
    assert inspect.Parameter.VAR_KEYWORD not in {parameter.kind for parameter in parameters.values()}


class Counting(nn.Module):
    config = SimpleNamespace(return_dict=True)

    @transformers_call
    def forward(self, input_ids: Any, attention_mask: Any = None, past_key_values: Any = None) -> CausalOutput:
        return CausalOutput(logits=input_ids, past_key_values=past_key_values)


def test_a_state_that_is_given_by_its_place_may_be_named_too() -> None:
    state = object()
    assert Counting()(TOKENS, None, state, cache=state).cache is state
    assert Counting()(TOKENS, None, None, cache=state).cache is state
    with pytest.raises(TypeError, match="two names"):
        Counting()(TOKENS, None, state, cache=object())


def test_an_output_is_made_with_either_name() -> None:
    state = object()
    for name in STATE_NAMES:
        assert CausalOutput(logits=TOKENS, **{name: state}).past_key_values is state  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="two names"):
        CausalOutput(logits=TOKENS, past_key_values=state, cache=object())


def test_a_model_that_knows_one_name_is_called_by_it() -> None:
    class Old(nn.Module):
        def forward(self, input_ids: Any, past_key_values: Any = None) -> None: ...

    class New(nn.Module):
        def forward(self, input_ids: Any, cache: Any = None) -> None: ...

    class Neither(nn.Module):
        def forward(self, *values: Any, **named: Any) -> None: ...

    arguments = [state_argument(kind()) for kind in (Old, New, Counting, Neither)]
    assert arguments == ["past_key_values", "cache", STATE_NAME, STATE_NAME]


def test_a_state_is_found_under_either_name() -> None:
    for name in STATE_NAMES:
        assert state_of(SimpleNamespace(**{name: 3})) == 3
    assert state_of(SimpleNamespace(logits=TOKENS)) is None
