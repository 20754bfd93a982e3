"""PMNet's ablations: each takes away the part that it names, and what is left keeps the contract of a model."""

import dataclasses
from typing import ClassVar

import pytest
import torch
from model_support import (
    bytes_in,
    feed,
    largest_difference,
    normal,
    random_tokens,
    relative_difference,
    tensors_in,
    training_gradients,
)
from pmnet_support import DEEP, SMALL, VOCABULARY, lively_pmnet

from pmnet_plugin.plugin import PMNetPlugin, PMNetSettings
from pmnet_plugin.relaxed import RelaxedMemoryWrite, polar
from seqbench.errors import RequestError
from seqbench.testing import check_model_plugin

TINY = PMNetPlugin.presets["tiny"]
TOKENS = random_tokens(2, 90, VOCABULARY)


def ablated(name: str, base: PMNetSettings = TINY) -> PMNetSettings:
    return dataclasses.replace(base, **PMNetPlugin.ablations[name].changes)


class AblatedPMNet(PMNetPlugin):
    """Its presets are the ablations that change what is computed, stored or carried."""

    presets: ClassVar = {"tiny": TINY, **{name: ablated(name) for name in ("flat-memory", "non-unitary")}}
    ablations: ClassVar = {}


@pytest.mark.parametrize("name", ["flat-memory", "non-unitary"])
def test_it_keeps_the_contract_of_a_model(name: str) -> None:
    """Beside streaming and padding, where test_direct.py compares it with the equations."""
    clauses = ["rows-independent", "receptive-field", "state-bytes", "parameters", "flops", "save-load", "diagnose"]
    check_model_plugin(AblatedPMNet, preset=name, clauses=clauses)


def test_every_ablation_of_the_paper_and_of_its_reviewers_has_its_name_and_its_phase() -> None:
    phases = {name: (each.in_training, each.at_evaluation) for name, each in PMNetPlugin.ablations.items()}
    in_training, at_evaluation = (True, False), (False, True)
    assert phases == {
        "no-memory": in_training,
        "no-recurrence": (True, True),
        "no-root-anchors": at_evaluation,
        "no-leaf-anchors": at_evaluation,
        "no-anchors": at_evaluation,
        "flat-memory": in_training,
        "non-unitary": in_training,
        "gradient-scale-none": in_training,
    }


@pytest.mark.parametrize("name", [name for name, each in PMNetPlugin.ablations.items() if each.at_evaluation])
def test_at_evaluation_it_takes_the_weights_of_the_whole_model_and_gives_other_logits(name: str) -> None:
    whole, without = lively_pmnet(), lively_pmnet(seed=1, **PMNetPlugin.ablations[name].changes)
    without.load_state_dict(whole.state_dict())
    with torch.no_grad():
        assert largest_difference(whole(TOKENS).logits, without(TOKENS).logits) > 1e-2


@pytest.mark.parametrize(
    ("name", "levels"), [("no-root-anchors", [0]), ("no-leaf-anchors", [2]), ("no-anchors", [0, 1, 2])]
)
def test_without_anchors_the_logits_are_those_of_a_model_whose_anchors_are_zero(name: str, levels: list[int]) -> None:
    zero, without = lively_pmnet(**DEEP), lively_pmnet(**DEEP, **PMNetPlugin.ablations[name].changes)
    with torch.no_grad():
        for level in levels:
            zero.model.memory_embeddings[level].zero_()
        assert torch.equal(zero(TOKENS).logits, without(TOKENS).logits)
    assert torch.equal(feed(zero, TOKENS, [40, 1, 49])[0], feed(without, TOKENS, [40, 1, 49])[0])
    assert all(anchors.abs().max() > 0 for anchors in without.model.memory_embeddings)


def test_a_flat_memory_has_one_group_of_slots_per_level_and_no_routing() -> None:
    plugin = PMNetPlugin()
    flat = plugin.build(ablated("flat-memory"))
    assert [tuple(anchors.shape) for anchors in flat.model.memory_embeddings] == [(1, 4, 16)] * 4
    output = flat(random_tokens(2, 20, 384), use_cache=True, output_routing=True)
    assert [tuple(table.shape) for table in output.past_key_values.tables] == [(2, 1, 64)] * 4
    assert output.next_groups == ()
    # 1 + 4 + 16 + 64 groups against 4, of 4 slots of 16 angles of 4 bytes.
    assert plugin.state_bytes(TINY, 9) - plugin.state_bytes(ablated("flat-memory"), 9) == (85 - 4) * 4 * 16 * 4


def test_a_flat_memory_may_have_as_many_levels_as_there_are_layers() -> None:
    with pytest.raises(RequestError, match="at most 262,144 are allowed"):
        dataclasses.replace(TINY, num_hidden_layers=40)
    assert ablated("flat-memory", dataclasses.replace(TINY, num_hidden_layers=4)).hierarchy_depth == 4
    assert dataclasses.replace(TINY, num_hidden_layers=40, memory_tree="flat").hierarchy_depth == 40


def test_gradient_scale_none_computes_the_same_logits() -> None:
    with torch.no_grad():
        expected = lively_pmnet()(TOKENS).logits
        assert torch.equal(lively_pmnet(gradient_scale="none")(TOKENS).logits, expected)


def test_a_relaxed_memory_carries_complex_numbers_in_fp64_and_counts_their_bytes() -> None:
    plugin, config = PMNetPlugin(), ablated("non-unitary")
    model = plugin.build(config)
    for sizes in ([50], [20, 1, 29]):
        _, state = feed(model, random_tokens(1, 50, 384), sizes)
        assert {table.dtype for table in state.tables} == {torch.float64}
        assert bytes_in(state) == plugin.state_bytes(config, 50) == plugin.state_bytes(TINY, 50) + 12 * 85 * 4 * 16
    extra = set(model.state_dict()) - set(plugin.build(TINY).state_dict())
    assert extra == {
        f"model.layers.{layer}.memory_write_module.proj_rho.{kind}" for layer in range(4) for kind in ("weight", "bias")
    }
    assert {plugin.parameter_group(name) for name in extra} == {"memory write"}


def test_reordered_rows_of_a_relaxed_state_continue_as_their_own_sequence() -> None:
    model = lively_pmnet(memory_dynamics="relaxed")
    logits, _ = feed(model, TOKENS, [60, 30])
    _, state = feed(model, TOKENS[:, :60], [60])
    state.reorder_cache(torch.tensor([1, 1, 0]))
    assert largest_difference(feed(model, TOKENS[[1, 1, 0], 60:], [30], state)[0], logits[[1, 1, 0], 60:]) < 1e-5


def test_the_magnitude_of_a_relaxed_memory_grows_where_all_increments_point_one_way() -> None:
    model = lively_pmnet(memory_dynamics="relaxed", num_hidden_layers=1)
    write = model.model.layers[0].memory_write_module
    assert isinstance(write, RelaxedMemoryWrite)
    with torch.no_grad():
        write.proj_out.weight.zero_()
        write.proj_out.bias.fill_(0.1)
    magnitudes = []
    for length in (30, 90):
        table = feed(model, TOKENS[:, :length], [length])[1].tables[0]
        real, imaginary = table.view(2, SMALL["num_memory"], 2, -1).unbind(dim=2)
        angles = torch.atan2(imaginary, real)
        assert largest_difference(angles, torch.full_like(angles, torch.pi * torch.tensor(0.1).tanh().item())) < 1e-6
        magnitudes.append(torch.hypot(real, imaginary).mean().item())
    assert 2 < magnitudes[1] / magnitudes[0] < 4


@pytest.mark.parametrize("magnitude", [3.0, 1e-3, 1e-5])
def test_angle_and_weight_of_a_complex_number_have_the_gradients_of_finite_differences(magnitude: float) -> None:
    values = (magnitude * (normal(5, 6, dtype=torch.float64).sign() + 0.3)).requires_grad_()
    assert torch.autograd.gradcheck(polar, (values,), eps=1e-6 * magnitude, atol=1e-3 / magnitude * 1e-3)


@pytest.mark.parametrize("magnitude", [0.0, 1e-45, 1e-38, 1e-20, 1e-8, 1e-6, 1e20])
def test_angle_and_weight_of_a_complex_number_have_finite_gradients_at_any_magnitude(magnitude: float) -> None:
    values = torch.tensor([[magnitude, -magnitude, 0.0, magnitude]]).requires_grad_()
    angle, weight = polar(values)
    (gradient,) = torch.autograd.grad((angle + 3 * weight).sum(), values)
    assert angle.isfinite().all() and weight.isfinite().all() and weight.min() >= 0 and weight.max() <= 1
    assert gradient.isfinite().all() and gradient.abs().max() <= 1e6 + 3


def test_a_relaxed_memory_without_magnitude_trains_with_finite_gradients() -> None:
    model = lively_pmnet(memory_dynamics="relaxed")
    for name, parameter in model.named_parameters():
        if name.endswith("proj_rho.bias"):
            # The magnitude softplus(...) rounds to zero.
            torch.nn.init.constant_(parameter, -1e4)
    for name, gradient in training_gradients(model, TOKENS).items():
        assert gradient.isfinite().all(), name


def test_a_relaxed_memory_under_bf16_autocast_keeps_its_state_precise_and_stays_near_fp32() -> None:
    torch.manual_seed(0)
    # Flat, because rounding sends a token near a tie to another group.
    model = PMNetPlugin().build(ablated("non-unitary", ablated("flat-memory")))
    tokens = random_tokens(2, 80, 384)
    with torch.no_grad():
        expected = model(tokens).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(tokens, use_cache=True)
        gradients = training_gradients(model, tokens)
    assert relative_difference(output.logits, expected) < 0.05
    assert {table.dtype for table in tensors_in(output.past_key_values.tables)} == {torch.float64}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
