"""What a user of PMNet may rely on when running it: causality, streaming, constant state, and its ablations."""

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_support import (
    bytes_in,
    chunk_sizes,
    circular_difference,
    feed,
    largest_difference,
    random_tokens,
    tensors_in,
    training_gradients,
)
from pmnet_support import DEEP, VOCABULARY, lively_pmnet

from pmnet_plugin.plugin import PMNetPlugin
from seqbench.contracts import with_settings
from seqbench_baselines.transformer.plugin import SlidingWindowPlugin
from seqbench_kernels.phase_scan import steps_to_radians

pytestmark = pytest.mark.transformers

LENGTH = 90
# The model is fixed, so that a property test need not build it for every example.
# At gain 1 the plain reference itself is 1.3e-4 from the fp64 oracle on logits of 14.
MODEL = lively_pmnet(gain=0.7)
TOKENS = random_tokens(2, LENGTH, VOCABULARY)


@pytest.mark.parametrize("changed", [1, 40, LENGTH - 1])
def test_the_past_does_not_feel_the_future(changed: int) -> None:
    other = TOKENS.clone()
    other[:, changed:] = random_tokens(2, LENGTH - changed, VOCABULARY, seed=2)
    with torch.no_grad():
        before, after = MODEL(TOKENS).logits, MODEL(other).logits
    assert largest_difference(before[:, :changed], after[:, :changed]) < 1e-5
    assert largest_difference(before[:, changed:], after[:, changed:]) > 1e-2


@settings(max_examples=12)
@given(st.lists(st.integers(1, 70), max_size=6))
def test_chunks_of_any_sizes_agree_with_the_full_forward(sizes: list[int]) -> None:
    with torch.no_grad():
        full = MODEL(TOKENS, use_cache=True)
    logits, cache = feed(MODEL, TOKENS, chunk_sizes(LENGTH, sizes))
    assert largest_difference(logits, full.logits) < 1e-4
    for own, expected in zip(cache.tables, full.past_key_values.tables, strict=True):
        assert circular_difference(steps_to_radians(own.long()), steps_to_radians(expected.long())) < 1e-4


def test_single_tokens_agree_with_the_full_forward() -> None:
    with torch.no_grad():
        full = MODEL(TOKENS).logits
    assert largest_difference(feed(MODEL, TOKENS, [1] * LENGTH)[0], full) < 1e-4


def test_a_passed_state_is_continued_and_a_fresh_call_forgets() -> None:
    _, state = feed(MODEL, TOKENS[:, :50], [50])
    with torch.no_grad():
        fresh = MODEL(TOKENS[:, 50:]).logits
    continued, _ = feed(MODEL, TOKENS[:, 50:], [40], state)
    assert largest_difference(fresh, continued) > 1e-2


def test_the_memory_reaches_beyond_the_attention_stack() -> None:
    reach = MODEL.config.num_hidden_layers * (MODEL.config.sliding_window - 1)
    other = TOKENS.clone()
    other[:, 0] = (other[:, 0] + 1) % VOCABULARY
    with torch.no_grad():
        assert largest_difference(MODEL(TOKENS).logits[:, reach + 20 :], MODEL(other).logits[:, reach + 20 :]) > 1e-3


@pytest.mark.parametrize("ablation", ["no-memory", "no-recurrence"])
def test_without_memory_or_without_recurrence_nothing_lies_beyond_the_attention_stack(ablation: str) -> None:
    model = lively_pmnet(**PMNetPlugin.ablations[ablation].changes)
    reach = model.config.num_hidden_layers * (model.config.sliding_window - 1)
    other = TOKENS.clone()
    other[:, 0] = (other[:, 0] + 1) % VOCABULARY
    with torch.no_grad():
        difference = (model(TOKENS).logits - model(other).logits).abs().amax(dim=(0, 2))
    assert difference[reach + 1 :].max() < 1e-6
    assert difference[reach] > 1e-6


def test_the_rows_of_a_batch_are_independent_to_the_bit() -> None:
    other = TOKENS.clone()
    other[1] = random_tokens(1, LENGTH, VOCABULARY, seed=3)
    with torch.no_grad():
        first, second = MODEL(TOKENS, use_cache=True), MODEL(other, use_cache=True)
    assert torch.equal(first.logits[0], second.logits[0])
    for own, others in zip(first.past_key_values.tables, second.past_key_values.tables, strict=True):
        assert torch.equal(own[0], others[0])
    with torch.no_grad():
        assert largest_difference(MODEL(TOKENS[:1]).logits, first.logits[:1]) < 1e-5


@pytest.mark.parametrize("ablation", [None, "no-memory", "no-recurrence"])
def test_the_state_has_the_declared_bytes_at_any_length(ablation: str | None) -> None:
    plugin = PMNetPlugin()
    changes = {name: str(value) for name, value in (plugin.ablations[ablation].changes if ablation else {}).items()}
    config = with_settings(plugin.with_vocabulary(plugin.presets["tiny"], VOCABULARY), changes, "model pmnet")
    model = plugin.build(config).eval()
    for length in (1, 3, 200):
        _, state = feed(model, random_tokens(1, length, VOCABULARY), [length])
        assert bytes_in(state) == plugin.state_bytes(config, length) == plugin.state_bytes(config, 1)


def test_the_papers_119m_state_is_174080_angles_of_4_bytes_beside_the_attention_window() -> None:
    plugin = PMNetPlugin()
    config = plugin.presets["119m"]
    without_memory = dataclasses.replace(config, use_memory=False)
    assert plugin.state_bytes(config, 10**6) - plugin.state_bytes(without_memory, 10**6) == 4 * 174_080


def test_a_state_never_carries_gradients_into_the_next_call() -> None:
    state = MODEL(TOKENS, use_cache=True).past_key_values
    assert not any(tensor.requires_grad for tensor in tensors_in(state))


def test_reordered_rows_of_a_state_continue_as_their_own_sequence() -> None:
    logits, _ = feed(MODEL, TOKENS, [60, 30])
    _, state = feed(MODEL, TOKENS[:, :60], [60])
    state.reorder_cache(torch.tensor([1, 1, 0]))
    continued, _ = feed(MODEL, TOKENS[[1, 1, 0], 60:], [30], state)
    assert largest_difference(continued, logits[[1, 1, 0], 60:]) < 1e-5


def test_grouped_queries_equal_key_and_value_heads_that_are_written_out() -> None:
    grouped, full = lively_pmnet(num_key_value_heads=2), lively_pmnet(num_key_value_heads=4)
    weights = {}
    for name, tensor in grouped.state_dict().items():
        if ".k_proj." in name or ".v_proj." in name:
            tensor = tensor.unflatten(0, (2, -1)).repeat_interleave(2, dim=0).flatten(0, 1)
        weights[name] = tensor
    full.load_state_dict(weights)
    with torch.no_grad():
        assert largest_difference(grouped(TOKENS).logits, full(TOKENS).logits) < 1e-5
    own, written_out = training_gradients(grouped, TOKENS), training_gradients(full, TOKENS)
    for name, gradient in own.items():
        expected = written_out[name]
        if ".k_proj." in name or ".v_proj." in name:
            expected = expected.unflatten(0, (2, 2, -1)).sum(dim=1).flatten(0, 1)
        assert largest_difference(gradient, expected) < 1e-5, name


def test_no_memory_is_the_sliding_window_baseline_to_the_bit() -> None:
    plugin, baseline = PMNetPlugin(), SlidingWindowPlugin()
    config = with_settings(plugin.presets["tiny"], {"use_memory": "false"}, "model pmnet")
    with torch.no_grad():
        model, rival = plugin.build(config), baseline.build(baseline.presets["tiny"])
        rival.load_state_dict(model.state_dict())
        tokens = random_tokens(2, LENGTH, config.vocab_size)
        assert torch.equal(model(tokens).logits, rival(tokens).logits)
        assert torch.equal(feed(model, tokens, [40, 1, 49])[0], feed(rival, tokens, [40, 1, 49])[0])
    gradients = training_gradients(rival, tokens)
    for name, gradient in training_gradients(model, tokens).items():
        assert torch.equal(gradient, gradients[name]), name


def test_random_data_is_routed_to_every_group() -> None:
    """The last write layer has no children, but its choice is recorded too."""
    model = lively_pmnet(**DEEP)
    with torch.no_grad():
        routing = model(random_tokens(2, 600, VOCABULARY), output_routing=True).next_groups
    for level, groups in enumerate(routing):
        assert groups.unique().tolist() == list(range(2 ** (level + 1)))


@pytest.mark.parametrize("seed", range(3))
def test_a_fresh_model_spreads_random_data_over_its_tree(seed: int) -> None:
    """Anchors that were all alike would send every token to slot 0."""
    torch.manual_seed(seed)
    model = PMNetPlugin().build(PMNetPlugin.presets["tiny"]).eval()
    with torch.no_grad():
        routing = model(random_tokens(2, 500, 384), output_routing=True).next_groups
    assert routing[0].unique().tolist() == [0, 1, 2, 3]
    for level, groups in enumerate(routing[:3]):
        shares = groups.flatten().bincount(minlength=4 ** (level + 1)) / groups.numel()
        assert (shares > 0).float().mean() > 0.75
        assert shares.max() < 0.75


def test_every_group_lies_below_the_group_that_its_token_came_from() -> None:
    with torch.no_grad():
        routing = lively_pmnet(**DEEP)(TOKENS, output_routing=True).next_groups
    for parent, child in itertools.pairwise(routing):
        assert torch.equal(child // 2, parent)


def test_only_the_asked_for_logits_are_computed() -> None:
    with torch.no_grad():
        assert largest_difference(MODEL(TOKENS, logits_to_keep=3).logits, MODEL(TOKENS).logits[:, -3:]) < 1e-5
