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
    "flat memory": {**DEEP, "memory_tree": "flat"},
    "non-unitary": {**DEEP, "memory_dynamics": "relaxed"},
    "non-unitary without recurrence": {"memory_dynamics": "relaxed", "memory_cumsum": False},
    "non-unitary, gradient scale none": {"memory_dynamics": "relaxed", "gradient_scale": "none"},
    "flat and non-unitary": {"memory_tree": "flat", "memory_dynamics": "relaxed"},
}
WITHOUT_ANCHORS: dict[str, dict[str, Any]] = {
    f"{levels} anchors zero": {**DEEP, "zeroed_anchors": levels} for levels in ("root", "leaf", "all")
}
# Sizes that divide nothing, five levels, layers that share a level unevenly.
LARGE: dict[str, dict[str, Any]] = {
    "five levels of odd sizes": {
        "hidden_size": 33,
        "intermediate_size": 41,
        "num_hidden_layers": 10,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 10,
        "sliding_window": 7,
        "memory_size": 7,
        "num_memory_read_heads": 3,
    },
    "twelve layers, period three": {"num_hidden_layers": 12, "memory_write_period": 3},
    "twelve layers, period five": {"num_hidden_layers": 12, "memory_write_period": 5, "num_key_value_heads": 1},
    "twelve layers, four slots": {"num_hidden_layers": 12, "memory_write_period": 4, "num_memory": 4},
    "twelve layers, non-unitary": {"num_hidden_layers": 12, "memory_write_period": 3, "memory_dynamics": "relaxed"},
}


def in_fp64(model: PMNetForCausalLM) -> dict[str, Tensor]:
    return {name: tensor.detach().double().requires_grad_() for name, tensor in model.named_parameters()}


def run_directly(model: PMNetForCausalLM, rows: list[Tensor]) -> list[Direct]:
    with torch.no_grad():
        results = [direct(in_fp64(model), model.config, row.tolist()) for row in rows]
    for result in results:
        # Where anchors are zero, all slots of the root are alike, and the first is taken.
        assert ((result.smallest_gap > NEAR_TIE) | (result.smallest_gap == 0)).all(), "routing is nearly tied"
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


def state_difference(table: Tensor, expected: Tensor) -> float:
    """Of one row's table of a level: in radians on the circle, or of z relative to its largest number."""
    if expected.is_complex():
        return relative_difference(table, torch.cat((expected.real, expected.imag), dim=-1).flatten(1))
    return circular_difference(steps_to_radians(table.long()), expected.flatten(1))


def check_values(model: PMNetForCausalLM, tokens: Tensor, *cuts: list[int]) -> None:
    """In one call, and in the chunks of each of `cuts`."""
    rows = run_directly(model, list(tokens))
    with torch.no_grad():
        routing = model(tokens, output_routing=True).next_groups
    for row, expected in enumerate(rows):
        assert [groups[row].tolist() for groups in routing] == expected.next_groups
    for sizes in ([tokens.shape[1]], *cuts):
        logits, cache = feed(model, tokens, sizes)
        for row, expected in enumerate(rows):
            assert largest_difference(logits[row], expected.logits) < 1e-4
            assert len(cache.tables) == (len(expected.tables) if model.config.memory_cumsum else 0)
            for table, state in zip(cache.tables, expected.tables, strict=False):
                assert state_difference(table[row], state) < 1e-4


def check_gradients(model: PMNetForCausalLM, tokens: Tensor) -> None:
    expected = direct_gradients(model, list(tokens))
    for name, gradient in training_gradients(model, tokens).items():
        assert relative_difference(gradient, expected[name]) < 1e-4, name


@pytest.mark.parametrize("shape", SHAPES | WITHOUT_ANCHORS)
def test_values_routing_and_state_are_those_of_the_equations(shape: str) -> None:
    model = lively_pmnet(**(SHAPES | WITHOUT_ANCHORS)[shape])
    check_values(model, random_tokens(2, 17, VOCABULARY), [1] * 17)


@pytest.mark.parametrize("shape", SHAPES)
def test_training_gradients_are_those_of_the_equations(shape: str) -> None:
    check_gradients(lively_pmnet(**SHAPES[shape]), random_tokens(2, 17, VOCABULARY))


@pytest.mark.parametrize("shape", LARGE)
def test_deep_models_with_odd_sizes_follow_the_equations_over_long_sequences(shape: str) -> None:
    model, tokens = lively_pmnet(gain=0.5, **LARGE[shape]), random_tokens(1, 300, VOCABULARY)
    check_values(model, tokens, [131, 1, 64, 65, 2, 37], [*[1] * 30, 240, *[1] * 30])
    check_gradients(model, tokens)


@pytest.mark.parametrize("shape", ["two levels", "three levels", "flat memory", "non-unitary"])
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
        for table, state in zip(output.past_key_values.tables, expected.tables, strict=True):
            assert state_difference(table[index], state) < 1e-4


@pytest.mark.parametrize("shape", ["two levels", "gradient scale none", "flat memory", "non-unitary"])
def test_padding_enters_neither_the_count_nor_any_gradient(shape: str) -> None:
    model = lively_pmnet(**SHAPES[shape])
    rows = [random_tokens(1, length, VOCABULARY, seed=length)[0] for length in (17, 6)]
    expected = direct_gradients(model, rows)
    for name, gradient in training_gradients(model, *pad_rows(rows, (2, 0), 20)).items():
        assert relative_difference(gradient, expected[name]) < 1e-4, name


@pytest.mark.parametrize("shape", ["two levels", "flat memory", "non-unitary"])
def test_a_padded_prompt_is_continued_as_if_it_had_no_padding(shape: str) -> None:
    model = lively_pmnet(**SHAPES[shape])
    rows = [random_tokens(1, length, VOCABULARY, seed=length)[0] for length in (17, 8)]
    prompt, mask = pad_rows([rows[0][:9], rows[1][:3]], (0, 6), 9)
    with torch.no_grad():
        state = model(prompt, attention_mask=mask, use_cache=True).past_key_values
    rest = torch.stack([rows[0][9:14], rows[1][3:8]])
    logits, _ = feed(model, rest, [1, 3, 1], state)
    for index, expected in enumerate(run_directly(model, rows)):
        start = (9, 3)[index]
        assert largest_difference(logits[index], expected.logits[start : start + 5]) < 1e-4
