"""What a user of PMNet may rely on when training it: initial values, gradients, precision, repeatability."""

from typing import Any

import pytest
import torch
from model_support import (
    largest_difference,
    pad_rows,
    random_tokens,
    relative_difference,
    tensors_in,
    training_gradients,
)
from pmnet_support import VOCABULARY, lively_pmnet
from torch import Tensor, nn

from pmnet_plugin.memory import MemoryWrite
from pmnet_plugin.plugin import PMNetPlugin, PMNetSettings


@pytest.fixture
def poisoned_memory():
    """Whatever is allocated and never written holds NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned_memory")
def test_a_fresh_model_has_the_published_initial_values() -> None:
    torch.manual_seed(0)
    model = PMNetPlugin().build(PMNetSettings(memory_size=64, hidden_size=96, intermediate_size=96))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        elif name.endswith("bias"):
            assert torch.equal(parameter, torch.zeros_like(parameter)), name
        else:
            # Six standard errors of a sample of that size.
            allowed = 6 * 0.02 / parameter.numel() ** 0.5
            assert abs(parameter.mean().item()) < allowed, name
            assert abs(parameter.std().item() - 0.02) < allowed, name


@pytest.mark.usefixtures("poisoned_memory")
def test_initial_values_follow_from_the_seed_alone() -> None:
    plugin = PMNetPlugin()

    def build(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return plugin.build(plugin.presets["tiny"]).state_dict()

    first, again, other = build(1), build(1), build(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name in first if "norm" not in name and not name.endswith("bias")]
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


def test_every_parameter_gets_a_finite_gradient_and_only_unvisited_anchors_get_none() -> None:
    model = lively_pmnet()
    for name, gradient in training_gradients(model, random_tokens(2, 100, VOCABULARY)).items():
        assert gradient.isfinite().all(), name
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("length", [16, 100])
def test_sqrt_count_divides_the_gradient_of_the_write_by_the_root_of_the_tokens_and_changes_nothing_else(
    length: int,
) -> None:
    """One layer: all tokens share the root, and the write's parameters act through its increments alone."""
    changes: dict[str, Any] = {"num_hidden_layers": 1, "memory_write_period": 1}
    scaled, unscaled = lively_pmnet(**changes), lively_pmnet(**changes, gradient_scale="none")
    tokens = random_tokens(1, length, VOCABULARY)
    with torch.no_grad():
        assert torch.equal(scaled(tokens).logits, unscaled(tokens).logits)
    padded, mask = pad_rows(list(tokens), (3,), length + 7)
    for inputs, where in ((tokens, None), (padded, mask)):
        plain = training_gradients(unscaled, inputs, where)
        for name, gradient in training_gradients(scaled, inputs, where).items():
            if "memory_write_module" in name:
                assert relative_difference(gradient * length**0.5, plain[name]) < 1e-5, name
            elif "memory_read_module" in name or "mlp" in name or "model.norm" in name:
                # What comes after the write; what lies before it feels the change through the write's inputs.
                assert relative_difference(gradient, plain[name]) < 1e-5, name


def test_the_count_is_that_of_the_tokens_own_row() -> None:
    """Two rows of 4 and 16 tokens: their parts of the gradient are divided by 2 and by 4."""
    changes: dict[str, Any] = {"num_hidden_layers": 1, "memory_write_period": 1}
    scaled, unscaled = lively_pmnet(**changes), lively_pmnet(**changes, gradient_scale="none")
    rows = [random_tokens(1, length, VOCABULARY, seed=length)[0] for length in (4, 16)]
    name = "model.layers.0.memory_write_module.proj_out.weight"
    parts = [training_gradients(unscaled, row.unsqueeze(0))[name] * (len(row) - 1) / 18 for row in rows]
    gradient = training_gradients(scaled, *pad_rows(rows, (0, 0), 16))[name]
    assert relative_difference(gradient, parts[0] / 2 + parts[1] / 4) < 1e-5


def floating_dtypes_of_writes(model: nn.Module) -> set[torch.dtype]:
    """Filled, as the model runs, with the dtypes of what its write modules put out."""
    seen: set[torch.dtype] = set()

    def record(module: nn.Module, inputs: Any, outputs: Any) -> None:
        seen.update(tensor.dtype for tensor in tensors_in(outputs) if tensor.is_floating_point())

    for module in model.modules():
        if isinstance(module, MemoryWrite):
            module.register_forward_hook(record)
    return seen


def test_training_under_bf16_autocast_keeps_phases_in_fp32_and_stays_near_fp32() -> None:
    plugin = PMNetPlugin()
    torch.manual_seed(0)
    model = plugin.build(plugin.presets["tiny"])
    tokens = random_tokens(2, 100, 384)
    expected, reference = model(tokens).logits, training_gradients(model, tokens)
    seen = floating_dtypes_of_writes(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(tokens).logits
        gradients = training_gradients(model, tokens)
    assert seen == {torch.float32}
    assert relative_difference(logits, expected) < 0.03
    for name, gradient in gradients.items():
        assert gradient.isfinite().all(), name
    total, difference = (
        sum(tensor.square().sum() for tensor in tensors)
        for tensors in (reference.values(), [gradients[name] - reference[name] for name in gradients])
    )
    assert difference < 0.05**2 * total


def test_a_model_in_bf16_keeps_phases_in_fp32_and_streams() -> None:
    plugin = PMNetPlugin()
    torch.manual_seed(0)
    model = plugin.build(plugin.presets["tiny"]).eval()
    tokens = random_tokens(2, 80, 384)
    with torch.no_grad():
        expected = model(tokens).logits
        model = model.to(torch.bfloat16)
        seen = floating_dtypes_of_writes(model)
        first = model(tokens[:, :50], use_cache=True)
        second = model(tokens[:, 50:], past_key_values=first.past_key_values, use_cache=True)
    assert seen == {torch.float32}
    assert relative_difference(torch.cat((first.logits, second.logits), dim=1), expected) < 0.03


def test_training_repeats_to_the_bit() -> None:
    def train() -> dict[str, Tensor]:
        model = lively_pmnet()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for step in range(3):
            training_gradients(model, random_tokens(2, 90, VOCABULARY, seed=step))
            optimizer.step()
        return model.state_dict()

    first, again = train(), train()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_few_steps_lower_the_loss() -> None:
    plugin = PMNetPlugin()
    torch.manual_seed(0)
    model = plugin.build(plugin.with_vocabulary(plugin.presets["tiny"], VOCABULARY))
    tokens = random_tokens(4, 12, VOCABULARY)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    with torch.no_grad():
        before = model(tokens, labels=tokens).loss
    for _ in range(30):
        training_gradients(model, tokens)
        optimizer.step()
    with torch.no_grad():
        assert model(tokens, labels=tokens).loss < before / 2


def test_attention_dropout_acts_in_training_only() -> None:
    model, tokens = lively_pmnet(attention_dropout=0.5), random_tokens(1, 70, VOCABULARY)
    plain = lively_pmnet()
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, plain(tokens).logits)
        model.train()
        assert largest_difference(model(tokens).logits, model(tokens).logits) > 1e-3
