"""What PMNet tells of its memory: routing, spread of phases, reach of gradients; and that asking changes nothing."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from direct import direct
from model_support import pad_rows, random_tokens
from pmnet_support import DEEP, VOCABULARY, lively_pmnet
from torch import Tensor

from pmnet_plugin.memory import MemoryWrite
from pmnet_plugin.modeling import PMNetForCausalLM
from pmnet_plugin.plugin import PMNetPlugin
from seqbench.contracts import IGNORED_LABEL, Batch, Measurement

LENGTH = 60


def batch_of(tokens: Tensor, mask: Tensor | None = None) -> Batch:
    labels = tokens.roll(-1, dims=1)
    labels[:, -1] = IGNORED_LABEL
    if mask is not None:
        labels = labels.masked_fill((mask == 0) | (mask.roll(-1, dims=1) == 0), IGNORED_LABEL)
    return Batch(tokens, labels, mask)


def told(model: PMNetForCausalLM, batch: Batch) -> dict[tuple[Any, ...], Measurement]:
    """By metric, level, and group or distance."""
    measurements = PMNetPlugin().diagnose(model, batch)
    assert all(measurement.split == "training" and math.isfinite(measurement.value) for measurement in measurements)
    keyed = {(each.metric, *each.coordinates.values()): each for each in measurements}
    assert len(keyed) == len(measurements)
    return keyed


def test_routing_is_told_level_by_level_from_the_first_that_tokens_are_routed_to() -> None:
    model, tokens = lively_pmnet(**DEEP), random_tokens(3, LENGTH, VOCABULARY)
    measured = told(model, batch_of(tokens))
    with torch.no_grad():
        routing = model(tokens, output_routing=True).next_groups
    for level in (1, 2):
        shares = [(routing[level - 1] == group).double().mean().item() for group in range(2**level)]
        for group, share in enumerate(shares):
            usage = measured["group_usage", level, group]
            assert usage.value == pytest.approx(share * 2**level) and usage.n == tokens.numel()
        entropy = -sum(share * math.log(share) for share in shares if share) / math.log(2**level)
        assert measured["routing_entropy", level].value == pytest.approx(entropy)
        assert measured["dead_groups", level].value == pytest.approx(shares.count(0) / 2**level)
    assert {key[1] for key in measured if key[0] in ("routing_entropy", "dead_groups")} == {1, 2}


def test_a_collapsed_router_has_no_entropy_and_all_groups_dead_but_one() -> None:
    model = lively_pmnet(**DEEP)
    with torch.no_grad():
        for anchors in model.model.memory_embeddings:
            anchors.zero_()
        for layer in model.model.layers:
            # Nothing is written, so all slots stay alike and the first is always taken.
            layer.memory_write_module.proj_out.weight.zero_()
            layer.memory_write_module.proj_out.bias.zero_()
    measured = told(model, batch_of(random_tokens(2, LENGTH, VOCABULARY)))
    for level in (1, 2):
        assert measured["routing_entropy", level].value == 0
        assert measured["dead_groups", level].value == 1 - 1 / 2**level
        assert measured["group_usage", level, 0].value == 2**level
    assert all(measured["phase_spread", level].value == pytest.approx(0, abs=1e-6) for level in range(3))


def test_phase_spread_is_one_less_the_resultant_of_the_phases_that_the_equations_give() -> None:
    """One level: a token's phases are the running sums of the increments of all tokens."""
    model, tokens = lively_pmnet(num_hidden_layers=2), random_tokens(1, LENGTH, VOCABULARY)
    parameters = {name: tensor.double() for name, tensor in model.state_dict().items()}
    phases = [direct(parameters, model.config, tokens[0, :end].tolist()).tables[0] for end in range(1, LENGTH + 1)]
    resultant = torch.polar(torch.ones((), dtype=torch.float64), torch.stack(phases)).mean(dim=0).abs()
    assert told(model, batch_of(tokens))["phase_spread", 0].value == pytest.approx(
        1 - resultant.mean().item(), abs=1e-5
    )


@pytest.mark.parametrize("scale", ["sqrt-count", "none"])
def test_the_recurrences_gradient_is_that_of_the_last_labels_loss_by_distance(scale: str) -> None:
    """Compared with gradients of a bias that is added to all increments of one token."""
    model, tokens = lively_pmnet(num_hidden_layers=2, gradient_scale=scale), random_tokens(2, LENGTH, VOCABULARY)
    batch = batch_of(tokens)
    batch.labels[0, 40:] = IGNORED_LABEL
    measured = told(model, batch)
    write, shifts = model.model.layers[0].memory_write_module, []
    assert isinstance(write, MemoryWrite)
    inner = write.weights_and_increments

    def shifted(query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        shifts.append(torch.zeros(2, LENGTH, 3, 6, requires_grad=True))
        weights, increments = inner(query, keys, values)
        return weights, increments + shifts[-1]

    write.weights_and_increments = shifted
    losses = [
        F.cross_entropy(model(tokens).logits[row, end], batch.labels[row, end]) for row, end in ((0, 39), (1, 58))
    ]
    norms: dict[int, list[float]] = {}
    for row, end, loss, shift in zip((0, 1), (39, 58), losses, shifts, strict=True):
        (gradient,) = torch.autograd.grad(loss, shift)
        for place in range(end):
            norms.setdefault(2 ** int(math.log2(end - place)), []).append(gradient[row, place].norm().item())
    assert {key[2] for key in measured if key[0] == "recurrence_gradient_norm"} == set(norms) == {1, 2, 4, 8, 16, 32}
    for distance, values in norms.items():
        own = measured["recurrence_gradient_norm", 0, distance]
        assert own.value == pytest.approx(sum(values) / len(values), rel=1e-4) and own.n == len(values)


def test_padding_is_left_out() -> None:
    model = lively_pmnet(**DEEP)
    rows = [random_tokens(1, length, VOCABULARY, seed=length)[0] for length in (30, 30)]
    plain = told(model, batch_of(torch.stack(rows)))
    for fronts in ((7, 0), (0, 4)):
        padded = told(model, batch_of(*pad_rows(rows, fronts, 37, pad=3)))
        assert padded.keys() == plain.keys()
        for key, measurement in padded.items():
            assert measurement.value == pytest.approx(plain[key].value, rel=1e-3, abs=1e-6), key
            assert measurement.n == plain[key].n


@pytest.mark.parametrize("name", [None, *PMNetPlugin.ablations])
def test_every_ablation_can_be_diagnosed(name: str | None) -> None:
    changes = PMNetPlugin.ablations[name].changes if name else {}
    model = lively_pmnet(**DEEP, **changes)
    metrics = {key[0] for key in told(model, batch_of(random_tokens(2, LENGTH, VOCABULARY)))}
    routing = {"routing_entropy", "dead_groups", "group_usage"}
    memory = {"phase_spread", "recurrence_gradient_norm"}
    expected = {"no-memory": set(), "flat-memory": memory}
    assert metrics == expected.get(name, routing | memory)


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated")
def test_nothing_is_changed_by_asking() -> None:
    """Not weights, gradients, the mode of a module or the random state; in training, with dropout and checkpointing."""
    model = lively_pmnet(attention_dropout=0.3)
    tokens = random_tokens(2, LENGTH, VOCABULARY)
    model.gradient_checkpointing_enable()
    model.train()
    model.model.layers[1].eval()
    model(tokens, labels=tokens).loss.backward()
    weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    modes, random_state = [module.training for module in model.modules()], torch.get_rng_state()
    with torch.no_grad():
        first, again = told(model, batch_of(tokens)), told(model, batch_of(tokens))
    assert first == again
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[name]) and torch.equal(parameter.grad, gradients[name]), name
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.model.layers.modules())


def test_frozen_weights_and_missing_labels_are_no_obstacle() -> None:
    model, tokens = lively_pmnet(), random_tokens(2, LENGTH, VOCABULARY)
    expected = told(model, batch_of(tokens))
    assert told(model.requires_grad_(False), batch_of(tokens)) == expected
    unlabelled = told(model, Batch(tokens, torch.full_like(tokens, IGNORED_LABEL)))
    assert {key[0] for key in expected} - {key[0] for key in unlabelled} == {"recurrence_gradient_norm"}


def test_under_bf16_autocast_the_same_is_told_to_bf16s_precision() -> None:
    torch.manual_seed(0)
    model = PMNetPlugin().build(PMNetPlugin.presets["tiny"])
    batch = batch_of(random_tokens(2, LENGTH, 384))
    expected = told(model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        measured = told(model, batch)
    assert measured.keys() == expected.keys()
    for key, measurement in measured.items():
        # Deeper, rounding sends a token near a tie to another group.
        if key[:2] in (("phase_spread", 0), ("recurrence_gradient_norm", 0)):
            assert measurement.value == pytest.approx(expected[key].value, rel=0.1), key


def test_only_the_first_rows_of_a_large_batch_are_looked_at() -> None:
    model = lively_pmnet(num_hidden_layers=1)
    batch = batch_of(random_tokens(70, 64, VOCABULARY))
    measured = told(model, batch)
    assert measured["phase_spread", 0].n == 64 * 64
    assert measured == told(model, batch.rows(0, 64))
    assert told(model, batch_of(random_tokens(2, 4500, VOCABULARY)))["phase_spread", 0].n == 4500
