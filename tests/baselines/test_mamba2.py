"""The plugin `mamba2`: transformers' Mamba-2 to the last digits, fast, with exact carried state and inert padding."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
from model_support import stored_bytes, training_gradients
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM
from transformers import Mamba2ForCausalLM as TransformersMamba2

from seqbench.contracts import with_settings
from seqbench.errors import RequestError
from seqbench_baselines.mamba.cache import MambaCache
from seqbench_baselines.mamba2.model import Mamba2ForCausalLM
from seqbench_baselines.mamba2.plugin import Mamba2Plugin, Mamba2Settings

PLUGIN = Mamba2Plugin()
SMALL = Mamba2Settings(vocab_size=50, hidden_size=24, num_hidden_layers=2, num_heads=6, state_size=5)
VARIANTS = [
    SMALL,
    dataclasses.replace(SMALL, n_groups=3, tie_word_embeddings=False),
    dataclasses.replace(SMALL, use_bias=True, use_conv_bias=False, n_groups=6),
    dataclasses.replace(SMALL, conv_kernel=1, expand=1, num_heads=1),
]


def build(config: Mamba2Settings = SMALL) -> Mamba2ForCausalLM:
    torch.manual_seed(0)
    model = PLUGIN.build(config)
    # Larger steps and longer memory than the initial ones, so that the state matters to the logits.
    for block in model.backbone.layers:
        block.mixer.dt_bias.data.add_(2)
        block.mixer.A_log.data.sub_(1)
    return model.eval()


def tokens(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, SMALL.vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


def loss_of(model, input_ids: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(input_ids).logits[:, :-1].flatten(0, 1), input_ids[:, 1:].flatten())


@pytest.mark.parametrize("config", VARIANTS)
def test_a_checkpoint_of_transformers_loads_and_gives_its_logits_and_gradients(config, tmp_path):
    theirs = TransformersMamba2(build(config).config).eval()
    theirs.save_pretrained(tmp_path)
    ours = Mamba2ForCausalLM.from_pretrained(tmp_path).eval()
    input_ids = tokens(2, 70)
    torch.testing.assert_close(ours(input_ids).logits, theirs(input_ids).logits, rtol=1e-4, atol=1e-5)
    loss_of(ours, input_ids).backward()
    loss_of(theirs, input_ids).backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        gradient = expected[name].grad
        assert (parameter.grad - gradient).abs().max() < 2e-5 * gradient.abs().max().clamp(min=0.1), name


def test_a_limit_on_step_sizes_is_that_of_transformers_and_refused_as_a_setting(tmp_path):
    config = build().config
    config.time_step_limit = (0.02, 0.05)
    theirs = TransformersMamba2(config).eval()
    theirs.save_pretrained(tmp_path)
    ours, input_ids = Mamba2ForCausalLM.from_pretrained(tmp_path).eval(), tokens(2, 20)
    torch.testing.assert_close(ours(input_ids).logits, theirs(input_ids).logits, rtol=1e-4, atol=1e-5)
    with pytest.raises(RequestError, match=r"time_step_limit \(0.02, 0.05\) is not supported"):
        PLUGIN.settings_from(ours.config)


def test_the_settings_of_a_saved_checkpoint_are_those_it_was_built_with(tmp_path):
    for config in VARIANTS:
        build(config).save_pretrained(tmp_path)
        assert PLUGIN.settings_from(Mamba2ForCausalLM.from_pretrained(tmp_path).config) == config


def test_a_saved_model_loads_in_transformers_as_its_own_class(tmp_path):
    ours = build()
    ours.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "mamba2"
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(theirs) is TransformersMamba2
    assert theirs.config.architectures == ["Mamba2ForCausalLM"]
    input_ids = tokens(2, 9)
    torch.testing.assert_close(theirs.eval()(input_ids).logits, ours(input_ids).logits, rtol=1e-4, atol=1e-5)


def test_training_follows_transformers_own_path():
    ours = build().train()
    theirs = TransformersMamba2(ours.config).train()
    theirs.load_state_dict(ours.state_dict())
    losses = []
    for model in (ours, theirs):
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for step in range(10):
            optimizer.zero_grad()
            loss = loss_of(model, tokens(2, 12, seed=step))
            loss.backward()
            optimizer.step()
        losses.append(loss_of(model, tokens(2, 12, seed=0)).item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    assert losses[0] < 3.7


@pytest.mark.parametrize("config", VARIANTS)
@pytest.mark.parametrize("cuts", [(1,) * 20, (2, 2, 16), (7, 13), (3, 1, 16)])
def test_a_sequence_in_chunks_of_any_length_equals_the_whole(config, cuts):
    model, input_ids = build(config), tokens(2, 20)
    with torch.no_grad():
        whole = model(input_ids, use_cache=True)
        cache, parts = None, []
        for piece in input_ids.split(cuts, dim=1):
            output = model(piece, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            parts.append(output.logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole.logits, rtol=1e-4, atol=1e-5)
    assert_same_state(cache, whole.past_key_values)


def assert_same_state(actual: MambaCache, expected: MambaCache, row: int | slice = slice(None)) -> None:
    assert torch.equal(actual.seen[row], expected.seen[row] if isinstance(row, slice) else expected.seen[0])
    for name in ("conv_states", "ssm_states"):
        for states, others in zip(getattr(actual, name), getattr(expected, name), strict=True):
            other = others if isinstance(row, slice) else others[0]
            torch.testing.assert_close(states[row], other, rtol=1e-4, atol=1e-5)


def test_the_state_matters_to_what_follows():
    model, input_ids = build(), tokens(2, 20)
    with torch.no_grad():
        whole, alone = model(input_ids).logits[:, 10:], model(input_ids[:, 10:]).logits
    # Beyond the reach of the convolutions: two blocks of four taps.
    assert (whole[:, 7:] - alone[:, 7:]).abs().max() > 1e-3


@pytest.mark.parametrize(("left", "right"), [(5, 0), (0, 5), (3, 4), (0, 13), (13, 0)])
def test_padding_on_either_side_changes_neither_real_tokens_nor_state(left, right):
    model, input_ids = build(), tokens(2, 14)
    mask = torch.ones_like(input_ids)
    mask[0, :left] = 0
    mask[0, 14 - right :] = 0
    real = input_ids[:1, left : 14 - right]
    with torch.no_grad():
        padded = model(input_ids, attention_mask=mask, use_cache=True)
        alone, beside = model(real, use_cache=True), model(input_ids[1:], use_cache=True)
        torch.testing.assert_close(padded.logits[:1, left : 14 - right], alone.logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(padded.logits[1:], beside.logits, rtol=1e-4, atol=1e-5)
        assert_same_state(padded.past_key_values, alone.past_key_values, row=0)
        # And the next chunk, padded again, continues the real tokens.
        following = tokens(2, 6, seed=5)
        next_mask = torch.ones_like(following)
        next_mask[0, -2:] = 0
        both = model(following, attention_mask=next_mask, past_key_values=padded.past_key_values)
        single = model(following[:1, :4], past_key_values=alone.past_key_values)
    torch.testing.assert_close(both.logits[:1, :4], single.logits, rtol=1e-4, atol=1e-5)
    assert_same_state(both.past_key_values, single.past_key_values, row=0)


def test_gradients_of_real_tokens_are_untouched_by_padding():
    model, input_ids = build(), tokens(1, 10)
    gradients = []
    for left, right in ((0, 0), (3, 2)):
        model.zero_grad()
        padded = F.pad(input_ids, (left, right), value=7)
        mask = F.pad(torch.ones_like(input_ids), (left, right))
        logits = model(padded, attention_mask=mask).logits[:, left : left + 10]
        F.cross_entropy(logits.flatten(0, 1), tokens(1, 10, seed=3).flatten()).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_under_bf16_autocast_scan_and_residual_stay_in_fp32():
    model, input_ids = build(), tokens(2, 30)
    with torch.no_grad():
        exact = model(input_ids).logits
        with torch.autocast("cpu", torch.bfloat16):
            output = model(input_ids, use_cache=True)
    assert all(state.dtype == torch.float32 for state in output.past_key_values.ssm_states)
    assert (output.logits.float() - exact).abs().max() < 0.03 * exact.abs().max()


@pytest.mark.parametrize("config", VARIANTS)
@pytest.mark.parametrize("length", [1, 33, 150])
def test_declared_flops_are_those_of_torchs_counter(config, length):
    model = build(config)
    with FlopCounterMode(display=False) as counter:
        model(tokens(1, length))
    declared = PLUGIN.flops(config, length)
    assert counter.get_total_flops() == declared.forward_total
    with FlopCounterMode(display=False) as counter:
        model(tokens(1, length)).logits.sum().backward()
    assert counter.get_total_flops() == declared.training_total


@pytest.mark.parametrize("config", [*VARIANTS, Mamba2Settings()])
def test_parameters_follow_the_closed_form_and_groups_sum_to_the_total(config):
    model = build(config)
    hidden, channels, heads = config.hidden_size, config.channels, config.num_heads
    convolved = channels + 2 * config.n_groups * config.state_size
    projected = channels + convolved + heads
    per_block = hidden * (projected + channels) + config.use_bias * (projected + hidden)
    per_block += convolved * (config.conv_kernel + config.use_conv_bias) + 3 * heads + channels + hidden
    embedding = config.vocab_size * hidden * (1 if config.tie_word_embeddings else 2)
    groups: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        group = PLUGIN.parameter_group(name)
        groups[group] = groups.get(group, 0) + parameter.numel()
    assert groups["embedding"] == embedding
    assert sum(groups.values()) - embedding == config.num_hidden_layers * per_block + hidden
    assert groups["scan"] == config.num_hidden_layers * 3 * heads
    assert set(groups) == {"embedding", "projections", "convolution", "scan", "norm"}


def test_presets_have_the_sizes_in_their_names():
    sizes = {}
    for name, config in PLUGIN.presets.items():
        with torch.device("meta"):
            sizes[name] = sum(parameter.numel() for parameter in PLUGIN.build(config).parameters())
    assert 200_000 < sizes["tiny"] < 310_000
    assert sizes["30m"] == pytest.approx(30e6, rel=0.03) and sizes["119m"] == pytest.approx(119e6, rel=0.03)
    # Called 130m by its authors.
    assert sizes["130m"] == pytest.approx(129e6, rel=0.01)


@pytest.mark.parametrize("config", VARIANTS)
@pytest.mark.parametrize("length", [1, 3, 70])
def test_declared_state_bytes_are_held_by_the_cache_at_any_length(config, length):
    with torch.no_grad():
        cache = build(config)(tokens(1, length), use_cache=True).past_key_values
    tensors = [*cache.conv_states, *cache.ssm_states, cache.seen]
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) == PLUGIN.state_bytes(config, length)
    assert sum(tensor.untyped_storage().nbytes() for tensor in tensors) == PLUGIN.state_bytes(config, length)


# transformers 5.23 has a second name for the switch; the first is known to all versions.
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_.*able. is deprecated")
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_stores_less_and_changes_no_gradient(reentrant):
    model, input_ids = build(dataclasses.replace(SMALL, num_hidden_layers=6)), tokens(2, 40)
    mask = torch.ones_like(input_ids)
    mask[0, :7] = 0
    plain, stored = training_gradients(model, input_ids, mask), stored_bytes(model, input_ids)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert stored_bytes(model, input_ids) < stored / 3
    own = training_gradients(model, input_ids, mask)
    assert all(torch.equal(own[name], gradient) for name, gradient in plain.items())
    with pytest.raises(ValueError, match="gradient checkpointing in training mode cannot go with a cache"):
        model(input_ids, use_cache=True)


def test_generate_continues_from_the_state_and_equals_transformers():
    ours = build()
    theirs = TransformersMamba2(ours.config).eval()
    theirs.load_state_dict(ours.state_dict())
    prompt = tokens(2, 6)
    arguments = {"max_new_tokens": 7, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(ours.generate(prompt, **arguments), theirs.generate(prompt, **arguments))


def test_settings_that_do_not_divide_are_refused():
    with pytest.raises(RequestError, match="num_heads must divide the 128 channels"):
        with_settings(Mamba2Settings(), {"num_heads": "5"}, "model mamba2")
    with pytest.raises(RequestError, match="n_groups must divide num_heads 4"):
        with_settings(Mamba2Settings(), {"n_groups": "3"}, "model mamba2")
    with pytest.raises(RequestError, match="time_step_min"):
        Mamba2Settings(time_step_min=0.5)


def test_at_any_width_there_are_heads_and_groups_that_divide():
    published = dataclasses.replace(PLUGIN.presets["130m"], n_groups=8)
    assert PLUGIN.with_width(published, 768) == published
    for width in range(8, 200, 8):
        assert PLUGIN.with_width(published, width).num_heads <= 24
        assert PLUGIN.with_width(Mamba2Settings(), width).num_heads == 4


def test_the_state_size_matches_parameters_to_within_a_percent():
    def size(state: int) -> int:
        model = PLUGIN.build(dataclasses.replace(Mamba2Settings(), state_size=state))
        return sum(parameter.numel() for parameter in model.parameters())

    with torch.device("meta"):
        assert 0 < size(65) - size(64) < 0.01 * size(64)


def test_confounds_name_the_convolution_and_the_kernel_path():
    confounds = PLUGIN.confounds(SMALL)
    assert confounds["short convolution"] == "4 taps per block"
    assert confounds["position encoding"] == "none"
    assert "scan" in confounds["kernel path"]
    assert PLUGIN.attention_reach(SMALL) is None and PLUGIN.receptive_field(SMALL) is None
