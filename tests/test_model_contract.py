"""The contract of a model plugin, over every installed plugin, each on its preset `tiny` with a small vocabulary."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from model_support import (
    bytes_in,
    enliven,
    feed,
    largest_difference,
    pad_rows,
    random_tokens,
    tensors_in,
    training_gradients,
)
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, PreTrainedModel

from seqbench.accounting import EMBEDDING_GROUP, count_parameters
from seqbench.contracts import ModelPlugin
from seqbench.registry import MODEL_GROUP, BrokenPlugin, announced, find_model, takes_argument

VOCABULARY, LENGTH = 41, 70
TOLERANCE = 1e-4
# Plugins that are named with an argument: one to try them with.
ARGUMENTS = {"hf": "llama"}
# Declares what transformers computes, the full square of an attention, not what lies inside the mask.
COUNTS_FULL_SQUARES = {"hf"}
TOKENS = random_tokens(2, LENGTH, VOCABULARY)


def with_other_token(place: int) -> Tensor:
    other = TOKENS.clone()
    other[:, place] = (other[:, place] + 1) % VOCABULARY
    return other


@dataclass(frozen=True)
class Subject:
    """A plugin and a small instance of it, in evaluation mode, whose logits depend clearly on every token."""

    plugin: ModelPlugin[Any]
    config: Any
    model: PreTrainedModel

    def fresh(self, seed: int = 0) -> PreTrainedModel:
        torch.manual_seed(seed)
        return self.plugin.build(self.config)

    @torch.no_grad()
    def logits(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.model.eval()(tokens, attention_mask=mask).logits

    def effect_of_one_token(self) -> float:
        """On the logits that follow it."""
        place = LENGTH // 2
        return (self.logits(TOKENS) - self.logits(with_other_token(place)))[:, place + 1 :].abs().max().item()


@functools.cache
def subject_of(name: str) -> Subject:
    plugin_class = announced(MODEL_GROUP)[name]
    if isinstance(plugin_class, BrokenPlugin):
        pytest.fail(f"{name} is announced and broken: {plugin_class.traceback}")
    if takes_argument(plugin_class):
        if name not in ARGUMENTS:
            pytest.skip(f"{name} takes an argument, and none is known here to try it with")
        name = f"{name}:{ARGUMENTS[name]}"
    plugin = find_model(name)
    config = plugin.with_vocabulary(plugin.presets["tiny"], VOCABULARY)
    torch.manual_seed(0)
    subject = Subject(plugin, config, plugin.build(config))
    # No more than needed: enlarged further, some recurrences magnify rounding too.
    while subject.effect_of_one_token() < 0.1:
        enliven(subject.model, 1.5)
    return subject


@pytest.fixture(scope="module", params=sorted(announced(MODEL_GROUP)))
def subject(request: pytest.FixtureRequest) -> Subject:
    return subject_of(request.param)


def test_logits_have_one_column_per_token_of_the_tasks_vocabulary(subject: Subject) -> None:
    assert subject.logits(TOKENS).shape == (2, LENGTH, VOCABULARY)


@pytest.mark.parametrize("changed", [1, 33, LENGTH - 1])
def test_causal(subject: Subject, changed: int) -> None:
    """The future is changed; the logits before it stay, those of the changed token do not."""
    before, after = subject.logits(TOKENS), subject.logits(with_other_token(changed))
    assert largest_difference(before[:, :changed], after[:, :changed]) < 1e-5
    assert largest_difference(before[:, changed], after[:, changed]) > 1e-2


@pytest.mark.parametrize(
    "sizes", [[LENGTH], [1] * LENGTH, [7, 1, 30, 2, 30], [66, 4]], ids=["one", "single tokens", "mixed", "two"]
)
def test_fed_in_chunks_with_its_state_it_agrees_with_the_full_forward(subject: Subject, sizes: list[int]) -> None:
    logits, _ = feed(subject.model, TOKENS, sizes)
    assert largest_difference(logits, subject.logits(TOKENS)) < TOLERANCE


def test_padding_on_either_side_is_inert(subject: Subject) -> None:
    """Logits of the real tokens, whatever token stands in the padding."""
    rows = [random_tokens(1, length, VOCABULARY, seed=length)[0] for length in (20, 13, 5, 1)]
    for fronts in ((0, 0, 0, 0), (0, 7, 15, 19), (0, 3, 8, 11)):
        for pad in (0, 3):
            tokens, mask = pad_rows(rows, fronts, 20, pad)
            logits = subject.logits(tokens, mask)
            for index, row in enumerate(rows):
                alone = subject.logits(row.unsqueeze(0))[0]
                assert largest_difference(logits[index, mask[index].bool()], alone) < TOLERANCE


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_leaves_no_trace_in_the_state(subject: Subject, side: str) -> None:
    """A padded prompt is continued like the same prompt without padding."""
    rows = [random_tokens(1, length, VOCABULARY, seed=length)[0] for length in (20, 13, 5)]
    fronts = [20 - len(row) if side == "left" else 0 for row in rows]
    tokens, mask = pad_rows(rows, fronts, 20)
    with torch.no_grad():
        state = subject.model(tokens, attention_mask=mask, use_cache=True).past_key_values
    rest = random_tokens(3, 6, VOCABULARY, seed=8)
    continued, _ = feed(subject.model, rest, [1, 4, 1], state)
    for index, row in enumerate(rows):
        whole = subject.logits(torch.cat((row, rest[index])).unsqueeze(0))
        assert largest_difference(continued[index], whole[0, len(row) :]) < TOLERANCE


def test_padding_changes_no_gradient(subject: Subject) -> None:
    row = random_tokens(1, 20, VOCABULARY)
    plain = training_gradients(subject.model, row)
    for front in (0, 6):
        gradients = training_gradients(subject.model, *pad_rows([row[0]], [front], 26))
        for name, gradient in gradients.items():
            assert largest_difference(gradient, plain[name]) < 1e-4 * max(1.0, plain[name].abs().max().item()), name


def test_the_rows_of_a_batch_are_independent(subject: Subject) -> None:
    other = TOKENS.clone()
    other[1] = random_tokens(1, LENGTH, VOCABULARY, seed=5)
    logits = subject.logits(TOKENS)
    assert largest_difference(subject.logits(other)[0], logits[0]) < 1e-6
    assert largest_difference(subject.logits(TOKENS[:1])[0], logits[0]) < 1e-5


def test_parameter_groups_sum_to_the_total_and_the_vocabulary_is_the_group_embedding(subject: Subject) -> None:
    counts = count_parameters(subject.plugin, subject.model)
    assert sum(counts.values()) == sum(parameter.numel() for parameter in subject.model.parameters())
    larger = subject.plugin.build(subject.plugin.with_vocabulary(subject.config, 2 * VOCABULARY))
    expected = {**counts, EMBEDDING_GROUP: 2 * counts[EMBEDDING_GROUP]}
    assert count_parameters(subject.plugin, larger) == expected


@pytest.mark.parametrize("length", [1, 50])
def test_the_declared_state_bytes_are_those_of_the_state(subject: Subject, length: int) -> None:
    declared = subject.plugin.state_bytes(subject.config, length)
    for sizes in ([length], [1] * length):
        _, state = feed(subject.model, TOKENS[:1, :length], sizes)
        assert bytes_in(state) == declared


def test_the_state_carries_no_gradient_into_the_next_call(subject: Subject) -> None:
    state = subject.model(TOKENS, use_cache=True).past_key_values
    assert not any(tensor.requires_grad for tensor in tensors_in(state))


def test_nothing_outside_the_declared_receptive_field_has_influence(subject: Subject) -> None:
    """None is unbounded: the first token reaches the last one. Elsewhere the farthest token inside has an influence."""
    field = subject.plugin.receptive_field(subject.config)
    change = (subject.logits(TOKENS) - subject.logits(with_other_token(0))).abs().amax(dim=(0, 2))
    if field is None:
        assert change[-1] > 1e-6
        return
    assert field < LENGTH, "the preset tiny is to have a receptive field that a test can leave"
    assert change[field:].max() == 0
    assert change[field - 1] > 0


def test_the_attention_reach_is_no_farther_than_the_receptive_field(subject: Subject) -> None:
    reach, field = subject.plugin.attention_reach(subject.config), subject.plugin.receptive_field(subject.config)
    if reach is not None and field is not None:
        assert reach + 1 <= field


def test_every_parameter_has_a_finite_gradient(subject: Subject) -> None:
    for name, gradient in training_gradients(subject.fresh(), TOKENS).items():
        assert gradient.isfinite().all(), name


def test_initial_weights_follow_from_the_global_seed_alone(subject: Subject) -> None:
    first, again, other = (subject.fresh(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_repeats_are_identical_to_the_bit(subject: Subject) -> None:
    assert torch.equal(subject.logits(TOKENS), subject.logits(TOKENS))
    first, again = (training_gradients(subject.fresh(), TOKENS) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_saved_model_is_loaded_with_its_values(subject: Subject, tmp_path: Path) -> None:
    """By its own class or, where that is made at run time, by the class that transformers finds for it."""
    subject.model.save_pretrained(tmp_path)
    loader = AutoModelForCausalLM if takes_argument(type(subject.plugin)) else type(subject.model)
    loaded = loader.from_pretrained(tmp_path)
    saved = subject.model.state_dict()
    assert loaded.state_dict().keys() == saved.keys()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in loaded.state_dict().items())
    with torch.no_grad():
        assert largest_difference(loaded.eval()(TOKENS).logits, subject.logits(TOKENS)) < 1e-6


@pytest.fixture
def attention_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """FLOPs of the two products of each attention call: over the rectangle computed, and inside its mask."""
    calls: list[tuple[int, int]] = []
    attend = F.scaled_dot_product_attention

    def record(query: Tensor, key: Tensor, value: Tensor, *arguments: Any, **options: Any) -> Tensor:
        shape = (*query.shape[:-1], key.shape[-2])
        inside = torch.ones(shape, dtype=torch.bool)
        if options.get("attn_mask") is not None:
            inside &= options["attn_mask"]
        if options.get("is_causal"):
            inside = inside.tril()
        per_pair = 2 * (query.shape[-1] + value.shape[-1])
        calls.append((per_pair * inside.numel(), per_pair * int(inside.sum())))
        return attend(query, key, value, *arguments, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    yield calls


@pytest.mark.parametrize("length", [80, 96])
def test_declared_flops_are_those_of_torchs_counter_on_an_equal_mask(
    subject: Subject, length: int, attention_calls: list[tuple[int, int]]
) -> None:
    """The counter sees whole rectangles of query-key products, a plugin declares the pairs inside the mask.

    So the rectangle of every attention call is taken off the counter's sum and the pairs inside that call's mask are
    put in its place; everything else is compared as it is. One forward pass of one sequence, attention as two plain
    products. The lengths are multiples of the preset's window, where no block is filled up, and above the length up to
    which a scan is computed through products of matrices (a scan is no matrix product and not declared).
    """
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        subject.model(random_tokens(1, length, VOCABULARY))
    counted = counter.get_total_flops()
    if subject.plugin.name not in COUNTS_FULL_SQUARES:
        counted += sum(inside - rectangle for rectangle, inside in attention_calls)
    flops = subject.plugin.flops(subject.config, length)
    assert flops.forward_total == sum(flops.forward.values()) == counted
    assert flops.training_total == round(counted * (1 + flops.backward_factor))
