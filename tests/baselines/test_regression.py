"""Decoders that solve a regression for every token: what their golden files cannot see."""

from typing import Any

import pytest
import torch
from torch import Tensor

from seqbench.errors import RequestError
from seqbench.mixers import Chunk, Mixer, MixerPlugin
from seqbench_baselines.regression.gka import GatedKalmaNetPlugin
from seqbench_baselines.regression.local_linear import LocalLinearAttentionPlugin, local_linear_attention
from seqbench_baselines.regression.mesanet import MesaNetPlugin
from seqbench_baselines.regression.parallax import ParallaxPlugin
from seqbench_kernels.ridge_solves.symmetric import solve_symmetric

PLUGINS = (ParallaxPlugin, MesaNetPlugin, GatedKalmaNetPlugin, LocalLinearAttentionPlugin)


def mixer_of(plugin: type[MixerPlugin], **settings: Any) -> Mixer[Any]:
    """With weights large enough that everything in it matters."""
    torch.manual_seed(0)
    chosen = plugin.config_class(**{"hidden_size": 24, "num_heads": 2, "head_dim": 8, **settings})
    mixer = plugin.mixer(24, chosen)
    mixer.initialise()
    with torch.no_grad():
        for module in mixer.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv1d):
                module.weight.normal_(std=0.5)
    return mixer


def read(mixer: Mixer[Any], hidden: Tensor) -> Tensor:
    batch, length = hidden.shape[:2]
    return mixer(hidden, None, Chunk(torch.zeros(batch, length, dtype=torch.int64), torch.zeros(batch).long(), None))[0]


def unit_inputs(length: int = 5) -> Tensor:
    return torch.randn(2, length, 24, generator=torch.Generator().manual_seed(1))


def test_lengths_of_mesanet_have_their_epsilon_inside_the_root():
    """1e-6 beside a sum of squares of 1e-6 makes keys shorter by a root of two; outside the root it would be 1e-3."""
    from seqbench_baselines.regression.mesanet import _unit

    small = torch.full((1, 8), 1e-3 / 8**0.5)
    torch.testing.assert_close(_unit(small).norm(), torch.tensor(0.5**0.5), rtol=1e-4, atol=0)


def test_lengths_of_gka_have_their_epsilon_outside_the_root_and_its_gate_has_one_too(monkeypatch):
    """What reaches the solve: a key of length 1e-6 becomes half as long as a unit, and a gate of 0 writes 1e-12."""
    from seqbench_baselines.regression import gka

    seen: dict[str, Tensor] = {}

    def noted(query: Tensor, key: Tensor, log_decay: Tensor, strength: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        seen.update(query=query, key=key, strength=strength)
        return query, key.new_zeros(2, 2, 8, 8)

    monkeypatch.setattr(gka, "ridge_solves", noted)
    mixer = mixer_of(GatedKalmaNetPlugin)
    with torch.no_grad():
        mixer.b_proj.weight.zero_()
        mixer.b_proj.bias.fill_(-1e4)
    tiny = torch.full((2, 1, 2, 8), 1e-6 / 8**0.5)
    mixer.regress(
        (tiny, tiny, tiny), unit_inputs(1), None, Chunk(torch.zeros(2, 1).long(), torch.zeros(2).long(), None)
    )
    torch.testing.assert_close(seen["key"].norm(dim=-1), torch.full((2, 1, 2), 0.5), rtol=1e-4, atol=0)
    torch.testing.assert_close(seen["query"], seen["key"])
    torch.testing.assert_close(seen["strength"], torch.full((2, 1, 2), 1e-12), rtol=1e-4, atol=0)


def test_ridges_of_mesanet_are_one_at_first_and_never_below_a_quarter(monkeypatch):
    from seqbench_baselines.regression import mesanet

    ridges: list[Tensor] = []

    def noted(*arguments: Any, **_: Any) -> tuple[Tensor, Tensor]:
        ridges.append(arguments[4])
        return arguments[0], arguments[0].new_zeros(2, 2, 8, 8)

    monkeypatch.setattr(mesanet, "ridge_solves", noted)
    mixer = mixer_of(MesaNetPlugin)
    read(mixer, unit_inputs())
    with torch.no_grad():
        mixer.lambda_params.fill_(-1e4)
    read(mixer, unit_inputs())
    torch.testing.assert_close(ridges[0], torch.ones(2, 8))
    torch.testing.assert_close(ridges[1], torch.full((2, 8), 0.25))


@pytest.mark.parametrize("plugin", PLUGINS)
def test_inputs_of_zero_have_finite_outputs_and_gradients(plugin):
    mixer = mixer_of(plugin)
    hidden = torch.zeros(2, 5, 24, requires_grad=True)
    read(mixer, hidden).square().sum().backward()
    gradients = [hidden.grad, *(parameter.grad for parameter in mixer.parameters())]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_parallax_without_a_probe_is_attention_and_shares_keys_between_heads():
    mixer = mixer_of(ParallaxPlugin, num_heads=4, num_key_value_heads=2, position_encoding="none", qkv_bias=True)
    hidden = unit_inputs()
    corrected = read(mixer, hidden)
    with torch.no_grad():
        mixer.r_proj.weight.zero_()
        mixer.r_proj.bias.zero_()
    query, key, value = (
        getattr(mixer, f"{name}_proj")(hidden).unflatten(-1, (-1, 8)).transpose(1, 2) for name in "qkv"
    )
    attended = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(read(mixer, hidden), mixer.o_proj(attended.transpose(1, 2).flatten(2)))
    assert not torch.allclose(read(mixer, hidden), corrected, atol=1e-2)


def test_parallax_turns_the_probe_by_its_position_and_norms_it():
    """With norms and positions the output depends on no length of a query or probe, and on the distance of tokens."""
    mixer = mixer_of(ParallaxPlugin, qk_norm=True, num_key_value_heads=2)
    hidden = unit_inputs()
    before = read(mixer, hidden)
    with torch.no_grad():
        mixer.r_proj.weight.mul_(3)
        mixer.q_proj.weight.mul_(2)
    torch.testing.assert_close(read(mixer, hidden), before, rtol=1e-3, atol=1e-4)
    shifted = Chunk(torch.zeros(2, 5).long(), torch.full((2,), 1000), None)
    torch.testing.assert_close(mixer(hidden, None, shifted)[0], before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("window", [2, 3])
def test_the_window_of_parallax_bounds_what_a_token_sees_and_what_is_carried(window):
    mixer = mixer_of(ParallaxPlugin, window=window)
    hidden = unit_inputs(9)
    before = read(mixer, hidden)
    hidden[:, 4] += 1
    changed = (read(mixer, hidden) != before).any(dim=2).any(dim=0).tolist()
    assert changed == [4 <= place < 4 + window for place in range(9)]
    chunk = Chunk(torch.zeros(2, 9).long(), torch.zeros(2).long(), None)
    assert mixer(hidden, None, chunk)[1][0].shape == (2, 2, window - 1, 8)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_heads": 3}, "multiple of num_key_value_heads"),
        ({"window": 1}, "take 2 or more"),
        ({"head_dim": 7}, "take 8, or position_encoding=none"),
    ],
)
def test_settings_of_parallax_that_do_not_go_together_are_refused(settings, words):
    with pytest.raises(RequestError, match=words):
        ParallaxPlugin.config_class(**settings)


def test_local_linear_attention_is_the_intercept_of_a_weighted_ridge_regression():
    """Normal equations of size d + 1, without a ridge on the intercept, one query at a time."""
    draws = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 6, 3, dtype=torch.float64, generator=draws) for _ in range(3))
    output = local_linear_attention(query, key, value, 0.1)
    for head in range(2):
        for place in range(6):
            q, k, v = query[0, head, place], key[0, head, : place + 1], value[0, head, : place + 1]
            weights = (k @ q / 3**0.5).softmax(dim=0)
            rows = torch.cat((torch.ones(place + 1, 1, dtype=torch.float64), k - q), dim=1)
            ridge = torch.diag(torch.tensor([0.0, 0.1, 0.1, 0.1], dtype=torch.float64))
            fitted = torch.linalg.solve(rows.T @ (weights[:, None] * rows) + ridge, rows.T @ (weights[:, None] * v))
            torch.testing.assert_close(output[0, head, place], fitted[0])


def test_a_large_ridge_leaves_attention_and_a_small_one_fits_linear_values():
    """Where values are a linear function of keys, a small ridge reads that function at the query, seen or not."""
    draws = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 2, 9, 3, dtype=torch.float64, generator=draws) for _ in range(3))
    attended = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(local_linear_attention(query, key, value, 1e9), attended, rtol=0, atol=1e-7)
    slope = torch.randn(3, 3, dtype=torch.float64, generator=draws)
    found = local_linear_attention(query, key, key @ slope + 1, 1e-9)
    torch.testing.assert_close(found[:, :, 5:], (query @ slope + 1)[:, :, 5:], rtol=1e-4, atol=1e-4)


def test_solves_of_symmetric_systems_pass_gradcheck():
    draws = torch.Generator().manual_seed(0)
    root = torch.randn(2, 3, 3, dtype=torch.float64, generator=draws, requires_grad=True)
    right = torch.randn(2, 3, dtype=torch.float64, generator=draws, requires_grad=True)
    identity = torch.eye(3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda root, right: solve_symmetric(root @ root.mT + identity, right), (root, right)
    )
