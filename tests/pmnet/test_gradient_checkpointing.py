"""Gradient checkpointing, switched on as transformers does: less is stored, and nothing else changes."""

from typing import Any

import pytest
import torch
from model_support import feed, largest_difference, random_tokens, stored_bytes, training_gradients
from pmnet_support import DEEP, VOCABULARY, lively_pmnet

from pmnet_plugin.modeling import PMNetForCausalLM

TOKENS = random_tokens(2, 100, VOCABULARY)
KINDS: dict[str, dict[str, Any]] = {
    "two layers a level": {},
    "three levels": DEEP,
    "non-unitary": {"memory_dynamics": "relaxed"},
    "flat memory": {"memory_tree": "flat"},
    "no memory": {"use_memory": False},
    "attention dropout": {"attention_dropout": 0.4},
}
# transformers 5.23 has a second name for the switch; the first is known to all versions.
pytestmark = pytest.mark.filterwarnings("ignore:.gradient_checkpointing_.*able. is deprecated")


def checkpointed(model: PMNetForCausalLM, **settings: Any) -> PMNetForCausalLM:
    model.gradient_checkpointing_enable(**settings)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_the_same_to_the_bit(kind: str) -> None:
    gradients = []
    for model in (lively_pmnet(**KINDS[kind]), checkpointed(lively_pmnet(**KINDS[kind]))):
        torch.manual_seed(3)
        gradients.append(training_gradients(model, TOKENS))
    plain, own = gradients
    assert all(torch.equal(own[name], gradient) for name, gradient in plain.items())


def test_gradients_are_the_same_with_reentrant_checkpoints_too() -> None:
    plain = training_gradients(lively_pmnet(**DEEP), TOKENS)
    model = checkpointed(lively_pmnet(**DEEP), gradient_checkpointing_kwargs={"use_reentrant": True})
    for name, gradient in training_gradients(model, TOKENS).items():
        assert largest_difference(gradient, plain[name]) <= 1e-6 * plain[name].abs().max(), name


def test_less_than_a_quarter_is_stored_for_the_backward_pass() -> None:
    model = lively_pmnet(num_hidden_layers=6, memory_write_period=3)
    plain = stored_bytes(model, TOKENS)
    assert 0 < stored_bytes(checkpointed(model), TOKENS) < plain / 4
    model.gradient_checkpointing_disable()
    assert stored_bytes(model, TOKENS) == plain


def test_a_cache_in_training_is_refused_and_no_state_is_advanced() -> None:
    """The layer would run twice, and store its tokens twice."""
    model = checkpointed(lively_pmnet()).train()
    _, state = feed(model.eval(), TOKENS[:, :50], [50])
    model.train()
    for arguments in ({"use_cache": True}, {"past_key_values": state}):
        with pytest.raises(ValueError, match=r"gradient checkpointing.*use_cache"):
            model(TOKENS[:, 50:], **arguments)
    assert state.seen.tolist() == [50, 50]


def test_evaluation_goes_on_with_a_cache() -> None:
    model = checkpointed(lively_pmnet(gain=0.7)).eval()
    found, expected = (feed(each, TOKENS, [60, 1, 39])[0] for each in (model, lively_pmnet(gain=0.7)))
    assert largest_difference(found, expected) < 1e-4


def test_training_with_a_cache_is_allowed_without_checkpoints() -> None:
    model = lively_pmnet().train()
    state = model(TOKENS[:, :50], use_cache=True).past_key_values
    assert model(TOKENS[:, 50:], past_key_values=state).logits.shape == (2, 50, VOCABULARY)
