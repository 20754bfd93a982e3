"""The fast model equals the equations, evaluated token by token in fp64 (direct.py): values, state and gradients."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from direct import Direct, direct
from model_support import (
    circular_difference,
    feed,
    largest_difference,
    pad_rows,
    random_tokens,
    relative_difference,
    training_gradients,
)
from pmnet_support import DEEP, VOCABULARY, lively_pmnet
from torch import Tensor

from pmnet_plugin.modeling import PMNetForCausalLM
from seqbench_kernels.phase_scan import steps_to_radians

# A token whose two best slots differ by less may be routed otherwise in fp32.
NEAR_TIE = 1e-5

SHAPES: dict[str, dict[str, Any]] = {
    "two levels": {},
    "three levels": DEEP,
    "one level, one key/value head": {"num_hidden_layers": 2, "num_key_value_heads": 1, "num_memory_read_heads": 1},
    "a last level without readers of its own": {"num_hidden_layers": 3},
    "four slots, a window of two": {"num_memory": 4, "sliding_window": 2, "num_key_value_heads": 4},
    "no recurrence": {"memory_cumsum": False},
    "gradient scale none": {"gradient_scale": "none"},
    "untied head": {"tie_word_embeddings": False},
}


def in_fp64(model: PMNetForCausalLM) -> dict[str, Tensor]:
    return {name: tensor.detach().double().requires_grad_() for name, tensor in model.named_parameters()}


def run_directly(model: PMNetForCausalLM, rows: list[Tensor]) -> list[Direct]:
    with torch.no_grad():
        results = [direct(in_fp64(model), model.config, row.tolist()) for row in rows]
    assert all(result.smallest_gap.min() > NEAR_TIE for result in results), "routing is nearly tied"
    return results


def direct_gradients(model: PMNetForCausalLM, rows: list[Tensor]) -> dict[str, Tensor]:
    """Of the mean loss over the predicted tokens of all rows, with the count scaling that the model is set to."""
    weights, losses = in_fp64(model), []
    for row in rows:
        result = direct(weights, model.config, row.tolist(), training=True)
        assert result.smallest_gap.min() > NEAR_TIE, "routing is nearly tied"
        losses.append(F.cross_entropy(result.logits[:-1], row[1:], reduction="sum"))
    loss = sum(losses) / sum(len(row) - 1 for row in rows)
    return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_values_routing_and_state_are_those_of_the_equations(shape: str) -> None:
    model, tokens = lively_pmnet(**SHAPES[shape]), random_tokens(2, 17, VOCABULARY)
    with torch.no_grad():
        output = model(tokens, use_cache=True, output_routing=True)
    for row, expected in enumerate(run_directly(model, list(tokens))):
        assert largest_difference(output.logits[row], expected.logits) < 1e-4
        assert [groups[row].tolist() for groups in output.next_groups] == expected.next_groups
        tables = output.past_key_values.tables
        assert len(tables) == (len(expected.tables) if model.config.memory_cumsum else 0)
        for table, phases in zip(tables, expected.tables, strict=False):
            assert circular_difference(steps_to_radians(table[row].long()), phases.flatten(1)) < 1e-4


@pytest.mark.parametrize("shape", SHAPES)
def test_training_gradients_are_those_of_the_equations(shape: str) -> None:
    model, tokens = lively_pmnet(**SHAPES[shape]), random_tokens(2, 17, VOCABULARY)
    expected = direct_gradients(model, list(tokens))
    for name, gradient in training_gradients(model, tokens).items():
        assert relative_difference(gradient, expected[name]) < 1e-4, name


@pytest.mark.parametrize("shape", ["two levels", "three levels"])
def test_padding_anywhere_leaves_logits_and_state_of_the_real_tokens_alone(shape: str) -> None:
    model = lively_pmnet(**SHAPES[shape])
    rows, fronts = [random_tokens(1, length, VOCABULARY, seed=length)[0] for length in (17, 11, 4)], (3, 0, 9)
    tokens, mask = pad_rows(rows, fronts, 20, pad=5)
    with torch.no_grad():
        output = model(tokens, attention_mask=mask, use_cache=True, output_routing=True)
    for index, expected in enumerate(run_directly(model, rows)):
        real = mask[index].bool()
        assert largest_difference(output.logits[index, real], expected.logits) < 1e-4
        assert [groups[index, real].tolist() for groups in output.next_groups] == expected.next_groups
        for table, phases in zip(output.past_key_values.tables, expected.tables, strict=True):
            assert circular_difference(steps_to_radians(table[index].long()), phases.flatten(1)) < 1e-4


@pytest.mark.parametrize("scale", ["sqrt-count", "none"])
def test_padding_enters_neither_the_count_nor_any_gradient(scale: str) -> None:
    model = lively_pmnet(gradient_scale=scale)
    rows = [random_tokens(1, length, VOCABULARY, seed=length)[0] for length in (17, 6)]
    expected = direct_gradients(model, rows)
    for name, gradient in training_gradients(model, *pad_rows(rows, (2, 0), 20)).items():
        assert relative_difference(gradient, expected[name]) < 1e-4, name


def test_a_padded_prompt_is_continued_as_if_it_had_no_padding() -> None:
    model = lively_pmnet()
    rows = [random_tokens(1, length, VOCABULARY, seed=length)[0] for length in (17, 8)]
    prompt, mask = pad_rows([rows[0][:9], rows[1][:3]], (0, 6), 9)
    with torch.no_grad():
        state = model(prompt, attention_mask=mask, use_cache=True).past_key_values
    rest = torch.stack([rows[0][9:14], rows[1][3:8]])
    logits, _ = feed(model, rest, [1, 3, 1], state)
    for index, expected in enumerate(run_directly(model, rows)):
        start = (9, 3)[index]
        assert largest_difference(logits[index], expected.logits[start : start + 5]) < 1e-4
