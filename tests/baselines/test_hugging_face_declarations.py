"""What `hf:` models declare that they do not fulfil, and that it is so."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from seqbench.testing import check_model_plugin

PADDED, CARRIED = "padding-state", {"chunked", "state-bytes", "state-detached", "padding-state"}


def declared(name: str, *clauses: str) -> set[str]:
    """Those of the clauses that are declared; no clause may fail."""
    outcomes = check_model_plugin(name, clauses=clauses).outcomes
    return {outcome.clause for outcome in outcomes if outcome.state == "declared"}


@pytest.mark.parametrize("name", ["hf:mistral", "hf:mamba"])
def test_padding_cannot_be_kept_out_of_the_state_of_a_window_or_a_recurrence(name: str) -> None:
    assert declared(name, PADDED, "state-detached") == {PADDED}


def test_learned_positions_and_full_attention_fulfil_every_clause_on_padding_and_state() -> None:
    assert declared("hf:gpt2", "padding", *CARRIED) == set()


def test_mistral_declares_a_receptive_field_that_is_longer_than_can_be_tried() -> None:
    (outcome,) = check_model_plugin("hf:mistral", clauses=["receptive-field"]).outcomes
    assert "of the 16,381 tokens declared" in outcome.message


def test_attention_counts_as_the_full_square_and_experts_as_they_are_used() -> None:
    assert declared("hf:mixtral", "flops", "parameters") == set()


def test_a_model_without_usable_state_declares_every_clause_on_states() -> None:
    assert declared("hf:recurrent_gemma", "rows-independent", *CARRIED) == CARRIED


def test_a_model_that_mixes_rows_up_when_it_continues_declares_that_too() -> None:
    """Of one row transformers' RWKV continues; of two, a single token's state is added to both."""
    assert declared("hf:rwkv", "chunked") == {"chunked"}


def test_a_checkpoint_declares_that_its_shape_and_weights_are_given(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=300, num_key_value_heads=2, **shape)).save_pretrained(tmp_path)
    fixed = {"width", "parameters", "seeded-initialisation"}
    assert declared(f"hf:{tmp_path}", "presets", "vocabulary", "chunked", "deterministic", *fixed) == fixed


@pytest.mark.transformers
def test_generate_of_transformers_is_tried_and_what_goes_wrong_is_declared() -> None:
    assert declared("hf:rwkv", "generate") == declared("hf:recurrent_gemma", "generate") == {"generate"}
    assert declared("hf:gpt2", "generate") == declared("hf:mamba", "generate") == set()
