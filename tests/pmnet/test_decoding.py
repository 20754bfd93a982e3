"""Steps of one token: equal to the whole sequence at once, in place, and at the same cost wherever they stand."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from model_support import feed, largest_difference, random_tokens, tensors_in
from pmnet_support import DEEP, VOCABULARY, lively_pmnet
from torch import Tensor, nn
from torch.profiler import profile
from transformers import PreTrainedModel

from seqbench.nn import DecodingSteps
from seqbench.plugins.kernels import forget_taken_paths, requested_paths, taken_paths
from seqbench_baselines.transformer.plugin import SlidingWindowPlugin

TOLERANCE = 1e-4


def window_transformer(**changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    settings = {"vocab_size": VOCABULARY, "sliding_window": 5, **changes}
    model = SlidingWindowPlugin().build(dataclasses.replace(SlidingWindowPlugin.presets["tiny"], **settings))
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.7 if "embed" in name else parameter.shape[1] ** -0.5)
    return model.eval()


def tokens_of(rows: int, length: int) -> Tensor:
    return random_tokens(rows, length, VOCABULARY)


def logits_of(model: nn.Module, tokens: Tensor, sizes: tuple[int, ...]) -> Tensor:
    return feed(model, tokens, sizes)[0]


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "window": window_transformer,
    "window of two, shared key/value heads": lambda: window_transformer(
        sliding_window=2, num_attention_heads=4, num_key_value_heads=2, head_dim=6
    ),
    "pmnet": lambda: lively_pmnet(gain=0.7),
    "pmnet of three levels": lambda: lively_pmnet(**DEEP, gain=0.7),
    "pmnet, flat": lambda: lively_pmnet(**DEEP, gain=0.7, memory_tree="flat"),
    "pmnet without recurrence": lambda: lively_pmnet(gain=0.7, memory_cumsum=False),
    "pmnet without memory": lambda: lively_pmnet(gain=0.7, use_memory=False),
    "pmnet, leaf anchors zero": lambda: lively_pmnet(**DEEP, gain=0.7, zeroed_anchors="leaf"),
    "pmnet, relaxed (no steps)": lambda: lively_pmnet(gain=0.7, memory_dynamics="relaxed"),
}


def count_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one with every step that is taken."""
    taken: list[int] = []
    finish = DecodingSteps.finish

    def counted(self: DecodingSteps, *arguments: Any) -> Tensor:
        taken.append(1)
        return finish(self, *arguments)

    monkeypatch.setattr(DecodingSteps, "finish", counted)
    return taken


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sizes", [(7, *[1] * 20), (3, *[1] * 4, 9, *[1] * 3, 2, *[1] * 3), (1,) * 27])
@torch.no_grad()
def test_steps_and_chunks_in_any_order_equal_the_whole_sequence(name: str, sizes: tuple[int, ...]) -> None:
    model = MODELS[name]()
    tokens = tokens_of(3, sum(sizes))
    assert largest_difference(logits_of(model, tokens, sizes), model(tokens).logits) < TOLERANCE


def test_a_model_takes_steps_when_no_gradient_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = count_steps(monkeypatch)
    for name in ("window", "pmnet", "pmnet of three levels", "pmnet without recurrence"):
        model, tokens = MODELS[name](), tokens_of(2, 12)
        with torch.no_grad():
            logits_of(model, tokens, (4,) + (1,) * 8)
        assert len(taken) == 8, name
        taken.clear()
        state = model(tokens[:, :4], use_cache=True).past_key_values
        assert model(tokens[:, 4:5], past_key_values=state, use_cache=True).logits.requires_grad
        assert not taken, "a step has no gradient"


@pytest.mark.parametrize("name", ["window", "pmnet"])
@torch.no_grad()
def test_rows_that_began_with_padding_step_as_if_alone(name: str) -> None:
    model, tokens = MODELS[name](), tokens_of(2, 14)
    padding = torch.tensor([[1] * 6, [0, 0, 0, 0, 1, 1]])
    start = model(tokens[:, :6], attention_mask=padding, use_cache=True)
    state, found = start.past_key_values, []
    for place in range(6, 14):
        found.append(model(tokens[:, place : place + 1], past_key_values=state, use_cache=True).logits)
    alone = model(tokens[1:, 4:]).logits[:, 2:]
    assert largest_difference(torch.cat(found, dim=1)[1:], alone) < TOLERANCE


@pytest.mark.parametrize("name", ["window", "pmnet of three levels"])
@torch.no_grad()
def test_beams_may_be_reordered_between_steps(name: str) -> None:
    model, tokens = MODELS[name](), tokens_of(2, 12)
    state = model(tokens[:, :5], use_cache=True).past_key_values
    for place in range(5, 8):
        model(tokens[:, place : place + 1], past_key_values=state, use_cache=True)
    state.reorder_cache(torch.tensor([1, 1]))
    swapped = torch.stack((tokens[1], tokens[1]))
    swapped[0, 8:] = tokens[0, 8:]
    found = [
        model(swapped[:, place : place + 1], past_key_values=state, use_cache=True).logits for place in range(8, 12)
    ]
    assert largest_difference(torch.cat(found, dim=1), model(swapped).logits[:, 8:]) < TOLERANCE


@pytest.mark.parametrize("name", ["window", "pmnet"])
@torch.no_grad()
def test_a_step_takes_no_memory_but_for_what_it_returns(name: str) -> None:
    model, tokens = MODELS[name](), tokens_of(2, 30)
    state = model(tokens[:, :20], use_cache=True).past_key_values
    for place in range(20, 23):
        model(tokens[:, place : place + 1], past_key_values=state, use_cache=True)
    tensors = list(tensors_in(state))
    addresses = [tensor.data_ptr() for tensor in tensors]
    newest = tokens[:, 23:24].contiguous()
    with profile(profile_memory=True) as profiled:
        returned = model.model(newest, None, state, True).last_hidden_state
    sizes = [event.nbytes() for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    # Numbers from Python (the 2 in x * 2) are boxed in 4 or 8 bytes.
    assert [size for size in sizes if size > 8] == [returned.nbytes]
    tensors = list(tensors_in(state))
    assert [tensor.data_ptr() for tensor in tensors] == addresses


@pytest.mark.parametrize("name", ["window", "pmnet"])
@torch.no_grad()
def test_what_was_returned_is_not_overwritten_by_the_next_step(name: str) -> None:
    model, tokens = MODELS[name](), tokens_of(1, 12)
    state = model(tokens[:, :8], use_cache=True).past_key_values
    first = model.model(tokens[:, 8:9], None, state, True).last_hidden_state
    kept = first.clone()
    model(tokens[:, 9:10], past_key_values=state, use_cache=True)
    assert torch.equal(first, kept)


@pytest.mark.parametrize("name", ["window", "pmnet"])
def test_a_state_from_inference_mode_may_be_continued_outside(name: str) -> None:
    model, tokens = MODELS[name](), tokens_of(1, 12)
    with torch.inference_mode():
        state = model(tokens[:, :6], use_cache=True).past_key_values
        model(tokens[:, 6:7], past_key_values=state, use_cache=True)
    with torch.no_grad():
        found = [
            model(tokens[:, place : place + 1], past_key_values=state, use_cache=True).logits for place in (7, 8, 9)
        ]
        assert largest_difference(torch.cat(found, dim=1), model(tokens[:, :10]).logits[:, 7:]) < TOLERANCE


@pytest.mark.parametrize("name", ["window", "pmnet"])
@torch.no_grad()
def test_hooks_and_adapters_are_not_passed_over(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubled(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            return 2 * super().forward(inputs)

    model, tokens, taken = MODELS[name](), tokens_of(1, 12), count_steps(monkeypatch)
    sizes = (6,) + (1,) * 6
    seen: list[Tensor] = []
    handle = model.model.layers[0].mlp.register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits_of(model, tokens, sizes)
    assert len(seen) == 7 and not taken
    handle.remove()
    old = model.model.layers[1].mlp.down_proj
    adapted = Doubled(old.in_features, old.out_features, bias=False)
    adapted.weight = old.weight
    model.model.layers[1].mlp.down_proj = adapted
    assert largest_difference(logits_of(model, tokens, sizes), model(tokens).logits) < TOLERANCE
    assert not taken


@pytest.mark.parametrize(
    ("name", "request_", "steps"),
    [
        ("window", "reference", False),
        ("window", "sliding_window_attention=sdpa", False),
        ("window", "memory_read=reference", True),
        ("pmnet", "reference", False),
        ("pmnet", "memory_read=reference", False),
        ("pmnet", "memory_write=cpu", False),
        ("pmnet", "phase_scan=reference", True),
        ("pmnet without memory", "memory_read=reference", True),
    ],
)
@torch.no_grad()
def test_whoever_asks_for_a_path_gets_it_for_single_tokens_too(
    name: str, request_: str, steps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokens, taken = MODELS[name](), tokens_of(1, 12), count_steps(monkeypatch)
    with requested_paths(request_):
        state = model(tokens[:, :6], use_cache=True).past_key_values
        forget_taken_paths()
        for place in range(6, 12):
            model(tokens[:, place : place + 1], past_key_values=state, use_cache=True)
        ran = taken_paths()
    assert bool(taken) == steps
    named = dict(word.split("=") for word in request_.split(",") if "=" in word)
    assert all(ran[operation] == [path] for operation, path in named.items() if operation in ran)
    assert (ran["sliding_window_attention"] == ["decoding-step"]) == steps
    if name == "pmnet":
        assert (ran["memory_read"] == ["decoding-step"]) == (ran["memory_write"] == ["decoding-step"]) == steps


@pytest.mark.parametrize("name", ["window", "pmnet of three levels"])
@torch.no_grad()
def test_steps_and_ordinary_calls_of_single_tokens_may_alternate(name: str) -> None:
    model, tokens = MODELS[name](), tokens_of(2, 16)
    state, found = model(tokens[:, :6], use_cache=True).past_key_values, []
    for place, request in zip(range(6, 16), ["", "reference", "reference", "", ""] * 2, strict=True):
        with requested_paths(request):
            found.append(model(tokens[:, place : place + 1], past_key_values=state, use_cache=True).logits)
    assert largest_difference(torch.cat(found, dim=1), model(tokens).logits[:, 6:]) < TOLERANCE


@pytest.mark.parametrize("name", ["window", "pmnet"])
@torch.no_grad()
def test_another_implementation_of_attention_is_not_passed_over(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens, taken = MODELS[name](), tokens_of(1, 12), count_steps(monkeypatch)
    model.set_attn_implementation("eager")
    logits_of(model, tokens, (6,) + (1,) * 6)
    assert not taken


@pytest.mark.parametrize("name", ["window", "pmnet"])
@torch.no_grad()
def test_half_precision_weights_step_within_their_rounding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens, taken = MODELS[name]().to(torch.bfloat16), tokens_of(2, 16), count_steps(monkeypatch)
    stepped = logits_of(model, tokens, (6,) + (1,) * 10)
    assert len(taken) == 10
    monkeypatch.setattr(DecodingSteps, "fits", lambda *arguments: False)
    ordinary = logits_of(model, tokens, (6,) + (1,) * 10)
    exact = MODELS[name]()(tokens).logits
    error = (ordinary.float() - exact).abs().mean()
    assert (stepped.float() - exact).abs().mean() < 1.5 * error


@pytest.mark.parametrize("name", ["window", "pmnet"])
@torch.no_grad()
def test_a_model_may_step_with_one_batch_size_after_another(name: str) -> None:
    model = MODELS[name]()
    for rows in (1, 3, 2):
        tokens = tokens_of(rows, 12)
        assert largest_difference(logits_of(model, tokens, (6,) + (1,) * 6), model(tokens).logits) < TOLERANCE
