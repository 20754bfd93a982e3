"""The attention that the user of transformers chooses: all choices give the same model."""

import json
from pathlib import Path
from typing import Any

import flash_attention_stand_in
import pytest
import torch
import torch.nn.functional as F
from model_support import enliven, feed, largest_difference, pad_rows, random_tokens, training_gradients
from transformers import AutoModelForCausalLM, PreTrainedModel

from seqbench.contracts import with_settings
from seqbench.plugins.registry import find_model

MODELS = ["pmnet", "transformer", "sliding-window"]
VOCABULARY, LENGTH = 41, 70
TOKENS = random_tokens(2, LENGTH, VOCABULARY)


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def build(name: str, implementation: str | None = None, **changes: Any) -> PreTrainedModel:
    """Four query heads on two key/value heads, and weights that make attention matter."""
    plugin = find_model(name)
    changes = {"num_attention_heads": "4", "head_dim": "16", **changes}
    config = with_settings(plugin.with_vocabulary(plugin.presets["tiny"], VOCABULARY), changes, name)
    torch.manual_seed(0)
    model = enliven(plugin.build(config), 4).eval()
    if implementation is not None:
        model.set_attn_implementation(implementation)
    return model


def test_the_default_is_torchs_own_attention(name: str) -> None:
    assert build(name).config._attn_implementation == "sdpa"


def test_the_softmax_written_out_gives_the_same_logits_and_gradients(name: str) -> None:
    written_out, default = build(name, "eager"), build(name)
    with torch.no_grad():
        assert largest_difference(written_out(TOKENS).logits, default(TOKENS).logits) < 1e-4
    expected = training_gradients(default, TOKENS)
    for parameter, gradient in training_gradients(written_out, TOKENS).items():
        scale = max(1.0, expected[parameter].abs().max().item())
        assert largest_difference(gradient, expected[parameter]) < 1e-4 * scale, parameter


@pytest.mark.parametrize("sizes", [[20] + [1] * 10 + [40], [7, 1, 30, 2, 30]], ids=["single tokens", "mixed"])
def test_the_softmax_written_out_continues_a_state_alike(name: str, sizes: list[int]) -> None:
    model = build(name, "eager")
    with torch.no_grad():
        whole = model(TOKENS).logits
    assert largest_difference(feed(model, TOKENS, sizes)[0], whole) < 1e-4


def test_padding_is_inert_under_the_softmax_written_out(name: str) -> None:
    model = build(name, "eager")
    rows = [random_tokens(1, length, VOCABULARY, seed=length)[0] for length in (20, 13, 5)]
    tokens, mask = pad_rows(rows, (0, 3, 15), 20)
    following = random_tokens(3, 6, VOCABULARY, seed=2)
    with torch.no_grad():
        output = model(tokens, attention_mask=mask, use_cache=True)
        after, _ = feed(model, following, [1, 5], output.past_key_values)
        for index, row in enumerate(rows):
            alone = model(torch.cat((row, following[index])).unsqueeze(0)).logits[0]
            own = torch.cat((output.logits[index, mask[index].bool()], after[index]))
            assert largest_difference(own, alone) < 1e-4


def test_each_choice_computes_what_it_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    library = F.scaled_dot_product_attention

    def record(*arguments: Any, **options: Any) -> torch.Tensor:
        calls.append("sdpa")
        return library(*arguments, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", record)
    layers = build(name).config.num_hidden_layers
    for implementation, expected in (("sdpa", layers), ("eager", 0)):
        calls.clear()
        build(name, implementation)(TOKENS)
        assert len(calls) == expected


def test_attention_dropout_is_applied_by_the_softmax_written_out_in_training_alone(name: str) -> None:
    model = build(name, "eager", attention_dropout="0.5")
    with torch.no_grad():
        first, again = (model.train()(TOKENS).logits for _ in range(2))
        assert largest_difference(first, again) > 1e-2
        model.eval()
        assert torch.equal(model(TOKENS).logits, model(TOKENS).logits)


def test_from_pretrained_takes_the_choice_and_the_saved_config_does_not_keep_it(name: str, tmp_path: Path) -> None:
    model = build(name)
    model.save_pretrained(tmp_path / "first")
    for loader in (type(model), AutoModelForCausalLM):
        loaded = loader.from_pretrained(tmp_path / "first", attn_implementation="eager").eval()
        assert loaded.config._attn_implementation == "eager"
        with torch.no_grad():
            assert torch.equal(loaded(TOKENS).logits, build(name, "eager")(TOKENS).logits)
    loaded.save_pretrained(tmp_path / "second")
    saved = [json.loads((tmp_path / folder / "config.json").read_text()) for folder in ("first", "second")]
    assert saved[0] == saved[1]
    assert not [field for field in saved[0] if "attn" in field or field.startswith("_")]


def test_a_choice_that_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    model = build(name)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"flex_attention has no backward pass on a CPU"):
        type(model).from_pretrained(tmp_path, attn_implementation="flex_attention")(TOKENS)
    with pytest.raises(ValueError, match="sdpa"):
        type(model).from_pretrained(tmp_path, attn_implementation="sdpaa")
    # A name that transformers lets pass where its package is installed.
    model.config._attn_implementation = "flash_attention_3"
    with pytest.raises(ValueError, match="'flash_attention_3' is not supported; choose sdpa, eager, flash"):
        model(TOKENS)


def test_without_the_package_flash_attention_is_refused_on_loading(name: str, tmp_path: Path) -> None:
    """The error is transformers' own and names the package; nothing else is computed instead."""
    if torch.cuda.is_available():
        pytest.skip("the package may be there")
    model = build(name)
    model.save_pretrained(tmp_path)
    with pytest.raises(ImportError, match=r"FlashAttention2 .* doesn't seem to be installed"):
        type(model).from_pretrained(tmp_path, attn_implementation="flash_attention_2", dtype=torch.bfloat16)


@pytest.fixture
def flash_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return flash_attention_stand_in.install(monkeypatch)


def with_flash(name: str) -> PreTrainedModel:
    model = build(name)
    # As from_pretrained leaves it where the package is installed.
    model.config._attn_implementation = "flash_attention_2"
    return model


def test_flash_attention_in_half_precision_agrees_with_the_softmax_written_out(
    name: str, flash_calls: list[str]
) -> None:
    """A whole sequence, its gradients, and chunks after prompts of different length."""
    flash, expected = with_flash(name).bfloat16(), build(name, "eager").bfloat16()
    scale = expected(TOKENS).logits.float().std().item()
    with torch.no_grad():
        assert (flash(TOKENS).logits - expected(TOKENS).logits).float().abs().mean() < 0.05 * scale
    assert set(flash_calls) == {"flash_attn_func"}
    rows = [random_tokens(1, length, VOCABULARY, seed=length)[0] for length in (20, 13, 2)]
    tokens, mask = pad_rows(rows, (0, 7, 18), 20)
    following = random_tokens(3, 6, VOCABULARY, seed=2)
    logits = []
    for model in (flash, expected):
        with torch.no_grad():
            state = model(tokens, attention_mask=mask, use_cache=True).past_key_values
            logits.append(feed(model, following, [1, 5], state)[0].float())
    assert (logits[0] - logits[1]).abs().mean() < 0.05 * scale
    assert "flash_attn_varlen_func" in flash_calls


def test_flash_attention_runs_under_autocast_and_not_in_fp32(name: str, flash_calls: list[str]) -> None:
    model = with_flash(name)
    with pytest.raises(ValueError, match="computes in float16 or bfloat16, not in float32: load the model with dtype="):
        model(TOKENS)
    assert not flash_calls
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = model(TOKENS).logits
        expected = build(name)(TOKENS).logits
    assert len(flash_calls) == model.config.num_hidden_layers
    assert (logits - expected).float().abs().mean() < 0.05 * expected.float().std()
