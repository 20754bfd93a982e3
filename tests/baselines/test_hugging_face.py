"""`--model hf:...`: any causal language model of transformers under the harness's call, or a clear refusal."""

import json
import socket

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from seqbench.accounting.counting import count_parameters
from seqbench.contracts import with_settings
from seqbench.errors import RequestError
from seqbench_baselines.hugging_face import HuggingFacePlugin

pytestmark = pytest.mark.transformers

TYPES = ["llama", "mistral", "gpt2", "mamba", "mamba2", "mixtral", "bert"]


def plugin_and_model(model_type: str):
    plugin = HuggingFacePlugin(model_type)
    config = plugin.with_vocabulary(plugin.presets["tiny"], 100)
    torch.manual_seed(0)
    return plugin, config, plugin.build(config).eval()


def tokens(batch: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 100, (batch, length), generator=torch.Generator().manual_seed(seed))


def refusal(call, *arguments) -> str:
    with pytest.raises(RequestError) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=300,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
    )
    model.save_pretrained(tmp_path / "llama")
    return tmp_path / "llama", model.eval()


@pytest.mark.parametrize("model_type", TYPES)
def test_tiny_has_about_200_thousand_parameters_in_groups_that_sum(model_type):
    plugin, config, model = plugin_and_model(model_type)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert 130_000 < total < 300_000
    groups: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        groups[plugin.parameter_group(name)] = groups.get(plugin.parameter_group(name), 0) + parameter.numel()
    assert groups["embedding"] in (100 * config.hidden_size, 2 * 100 * config.hidden_size)


@pytest.mark.parametrize("model_type", TYPES)
@torch.no_grad()
def test_logits_are_transformers_own_and_causal(model_type):
    _, _, model = plugin_and_model(model_type)
    native = AutoModelForCausalLM.from_config(model.config).eval()
    native.load_state_dict(model.state_dict())
    input_ids = tokens(2, 12)
    logits = model(input_ids).logits
    torch.testing.assert_close(logits, native(input_ids, use_cache=False).logits)
    changed = input_ids.clone()
    changed[:, 8:] = (changed[:, 8:] + 1) % 100
    torch.testing.assert_close(model(changed).logits[:, :8], logits[:, :8], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("model_type", TYPES)
@torch.no_grad()
def test_state_continues_a_sequence_in_chunks_of_any_length(model_type):
    _, _, model = plugin_and_model(model_type)
    input_ids = tokens(2, 14)
    state, parts = None, []
    for piece in input_ids.split((5, 6, 1, 2), dim=1):
        output = model(piece, past_key_values=state, use_cache=True)
        state = output.past_key_values
        parts.append(output.logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), model(input_ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", TYPES)
@torch.no_grad()
def test_padding_on_either_side_is_inert(model_type):
    _, _, model = plugin_and_model(model_type)
    input_ids = tokens(2, 12)
    mask = torch.ones_like(input_ids)
    mask[0, :4] = 0
    mask[1, 9:] = 0
    padded = model(input_ids, attention_mask=mask).logits
    torch.testing.assert_close(padded[:1, 4:], model(input_ids[:1, 4:]).logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded[1:, :9], model(input_ids[1:, :9]).logits, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_full_attention_keeps_padding_out_of_its_state_also_in_later_chunks():
    _, _, model = plugin_and_model("llama")
    first, second = tokens(2, 8), tokens(2, 6, seed=2)
    first_mask, second_mask = torch.ones_like(first), torch.ones_like(second)
    first_mask[0, :3] = 0
    first_mask[1, 5:] = 0
    second_mask[1, 4:] = 0
    state = model(first, attention_mask=first_mask, use_cache=True).past_key_values
    logits = model(second, attention_mask=second_mask, past_key_values=state).logits
    rows = (torch.cat((first[0, 3:], second[0])), torch.cat((first[1, :5], second[1, :4])))
    torch.testing.assert_close(logits[0], model(rows[0][None]).logits[0, 5:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits[1, :4], model(rows[1][None]).logits[0, 5:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", ["mamba", "mistral"])
def test_other_states_refuse_padding_instead_of_carrying_it(model_type):
    _, _, model = plugin_and_model(model_type)
    mask = torch.ones(2, 8, dtype=torch.int64)
    mask[0, 6:] = 0
    message = refusal(lambda: model(tokens(2, 8), attention_mask=mask, use_cache=True))
    assert f"hf:{model_type}: padding cannot be kept out of the state" in message


def test_how_state_is_carried_is_a_confound():
    # transformers' Mamba forgets its state when it gets several tokens at once.
    for model_type, words in (("llama", "exact in chunks of any length"), ("mamba", "one token at a time")):
        plugin = HuggingFacePlugin(model_type)
        assert words in plugin.confounds(plugin.presets["tiny"])["carried state"]


def test_a_model_without_usable_state_says_so_and_still_trains():
    plugin, config, model = plugin_and_model("recurrent_gemma")
    assert plugin.confounds(config)["carried state"].startswith("none")
    assert plugin.state_bytes(config, 16) == 0
    assert "keeps no state" in refusal(lambda: model(tokens(1, 4), use_cache=True))
    model(tokens(1, 4)).logits.sum().backward()


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "mixtral", "mamba"])
def test_declared_flops_are_those_of_torchs_counter(model_type):
    plugin, config, model = plugin_and_model(model_type)
    if hasattr(model.config, "_experts_implementation"):
        model.config._experts_implementation = "eager"
    math_only = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with torch.no_grad(), math_only, FlopCounterMode(display=False) as counter:
        model(tokens(1, 24))
    assert plugin.flops(config, 24).forward_total == counter.get_total_flops()


@pytest.mark.parametrize("model_type", ["llama", "mamba"])
def test_declared_state_bytes_are_held_by_the_cache(model_type):
    plugin, config, model = plugin_and_model(model_type)
    layers = config.num_hidden_layers
    if model_type == "llama":
        expected = 2 * layers * 10 * config.num_key_value_heads * config.head_dim * 4
    else:
        native = model.config
        expected = layers * native.intermediate_size * (native.conv_kernel + native.state_size) * 4
    assert plugin.state_bytes(config, 10) == expected


def test_a_window_in_every_layer_is_the_attention_reach():
    plugin = HuggingFacePlugin("mistral")
    config = with_settings(plugin.presets["tiny"], {"overrides": '{"sliding_window": 5}'}, "model hf:mistral")
    assert plugin.attention_reach(config) == 4 * (5 - 1)
    assert plugin.receptive_field(config) == 17
    assert HuggingFacePlugin("llama").attention_reach(HuggingFacePlugin("llama").presets["tiny"]) is None


def test_saving_keeps_transformers_names_and_generate_works(tmp_path):
    _, _, model = plugin_and_model("llama")
    model.save_pretrained(tmp_path)
    native = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(native) is LlamaForCausalLM
    arguments = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    prompt = tokens(2, 6)
    mask = torch.ones_like(prompt)
    mask[0, :2] = 0
    ours, theirs = (each.generate(prompt, attention_mask=mask, **arguments) for each in (model, native))
    assert torch.equal(ours, theirs)


@torch.no_grad()
def test_a_saved_folder_keeps_its_weights_and_uses_the_first_ids_of_a_larger_vocabulary(checkpoint):
    folder, native = checkpoint
    plugin = HuggingFacePlugin(str(folder))
    config = plugin.with_vocabulary(plugin.presets[plugin.default_preset], 256)
    model = plugin.build(config).eval()
    input_ids = tokens(2, 9)
    torch.testing.assert_close(model(input_ids).logits, native(input_ids).logits[..., :256])
    assert plugin.confounds(config)["initialisation"].startswith("weights of hf:")
    with torch.device("meta"):
        assert all(parameter.is_meta for parameter in plugin.build(config).parameters())


def test_a_checkpoint_refuses_a_larger_vocabulary_and_another_shape(checkpoint):
    plugin = HuggingFacePlugin(str(checkpoint[0]))
    config = plugin.presets["checkpoint"]
    assert "knows 300 token ids and the task has 400" in refusal(plugin.with_vocabulary, config, 400)
    wider = with_settings(config, {"hidden_size": "64"}, "model")
    assert "hidden_size 32, which cannot be set to 64" in refusal(plugin.build, wider)


def test_damaged_and_incomplete_checkpoints_are_refused(checkpoint):
    folder, _ = checkpoint
    plugin = HuggingFacePlugin(str(folder))
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "its weights cannot be loaded" in refusal(plugin.build, plugin.presets["checkpoint"])
    weights.unlink()
    assert "its weights cannot be loaded" in refusal(plugin.build, plugin.presets["checkpoint"])
    (folder / "config.json").write_text("{")
    assert "its config.json cannot be used" in refusal(HuggingFacePlugin, str(folder))
    (folder / "config.json").unlink()
    assert "there is no config.json in that folder" in refusal(HuggingFacePlugin, str(folder))


def test_weights_that_the_checkpoint_lacks_are_never_made_up(checkpoint):
    folder, _ = checkpoint
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    plugin = HuggingFacePlugin(str(folder))
    assert "holds no weights for 9 parameters" in refusal(plugin.build, plugin.presets["checkpoint"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lama", "unknown model type; did you mean llama"),
        ("vit", "no causal language model of type 'vit'"),
        ("./missing/folder", "there is no such folder"),
        ("/missing/folder", "there is no such folder"),
    ],
)
def test_names_that_stand_for_nothing_are_refused_with_advice(name, message):
    text = refusal(HuggingFacePlugin, name)
    assert f"hf:{name}" in text and message in text


def test_an_unreachable_hub_is_one_clear_message(monkeypatch):
    def no_network(*_arguments, **_keywords):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    text = refusal(HuggingFacePlugin, "owner/some-model")
    assert "hf:owner/some-model: there is no folder of that name, and the hub cannot be reached" in text
    assert "type hf:<its folder>" in text


def test_fields_that_the_type_does_not_have_are_refused():
    plugin = HuggingFacePlugin("mamba")
    config = with_settings(plugin.presets["tiny"], {"num_key_value_heads": "2"}, "model")
    assert "hf:mamba has no field num_key_value_heads" in refusal(plugin.build, config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ('{"rope_thetaa": 1}', "overrides names 'rope_thetaa'"),
        ('{"sliding_windw": 4}', "did you mean sliding_window"),
        ('{"hidden_size": 32}', "type --set model.hidden_size="),
        ('{"hidden_act": 3}', "transformers refuses this config"),
    ],
)
def test_overrides_are_checked_against_the_config_class(overrides, message):
    plugin = HuggingFacePlugin("mistral")
    config = with_settings(plugin.presets["tiny"], {"overrides": overrides}, "model")
    assert message in refusal(plugin.build, config)


@pytest.mark.parametrize("text", ["rope_theta=1", "[1]"])
def test_overrides_must_be_a_json_object(text):
    settings = HuggingFacePlugin("llama").presets["tiny"]
    assert "overrides takes a JSON object" in refusal(with_settings, settings, {"overrides": text}, "model")


def test_huge_models_are_refused_before_memory_is_taken_naming_the_fields():
    plugin = HuggingFacePlugin("llama")
    config = with_settings(plugin.presets["tiny"], {"intermediate_size": "1000000000"}, "model")
    text = refusal(plugin.build, config)
    assert "more than model.parameter_limit (500,000,000)" in text and "intermediate_size 1000000000" in text


@pytest.mark.parametrize("kind", ["llama", "mamba", "qwen3"])
def test_a_states_size_at_great_length_follows_from_how_it_grows(kind: str) -> None:
    plugin = HuggingFacePlugin(kind)
    config = plugin.with_vocabulary(plugin.presets["tiny"], 35)
    at_100, at_200, at_65536 = (plugin.state_bytes(config, length) for length in (100, 200, 65536))
    if kind == "mamba":
        assert at_100 == at_200 == at_65536 > 0
    else:
        assert at_65536 - at_200 == (at_200 - at_100) // 100 * (65536 - 200) > 0


def test_gpt2_small_has_its_published_parameters():
    """124,439,808 with tied embeddings, 12 layers of 768 and 1,024 positions."""
    plugin = HuggingFacePlugin("gpt2")
    shape = {
        "hidden_size": "768",
        "num_hidden_layers": "12",
        "num_attention_heads": "12",
        "overrides": '{"n_inner": 3072}',
    }
    config = with_settings(plugin.with_vocabulary(plugin.presets["tiny"], 50257), shape, "model")
    with torch.device("meta"):
        counts = count_parameters(plugin, plugin.build(config))
    assert sum(counts.values()) == 124_439_808
    assert counts["embedding"] == 50257 * 768


@pytest.mark.parametrize("beams", [1, 3])
def test_generate_writes_ids_of_the_tasks_vocabulary_alone(checkpoint, beams):
    folder, native = checkpoint
    plugin = HuggingFacePlugin(str(folder))
    model = plugin.build(plugin.with_vocabulary(plugin.presets[plugin.default_preset], 7)).eval()
    prompt, options = tokens(2, 5) % 7, {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "num_beams": beams}
    assert native.generate(prompt, **options).max() >= 7
    assert model.generate(prompt, **options).max() < 7
