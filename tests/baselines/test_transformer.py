"""The decoder baselines: attention over everything or over a window, and sizes as their presets say."""

import pytest
import torch
from model_support import feed, largest_difference, random_tokens, stored_bytes, training_gradients
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from seqbench.accounting.counting import count_parameters
from seqbench.contracts import with_settings
from seqbench.mixers import MixerPlugin
from seqbench_baselines.transformer.plugin import SlidingWindowPlugin, TransformerPlugin

LENGTH = 80


def build(plugin: MixerPlugin, **changes: object) -> PreTrainedModel:
    config = with_settings(plugin.presets["tiny"], {name: str(value) for name, value in changes.items()}, "model")
    torch.manual_seed(0)
    model = plugin.build(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
            else:
                parameter.mul_(6)
    return model


def plain_decoder(model: PreTrainedModel, tokens: Tensor, window: int | None) -> Tensor:
    """Logits of one sequence in fp64: softmax over a matrix of scores, rotation by complex numbers."""
    config = model.config
    weights = {name.removeprefix("model."): tensor.detach().double() for name, tensor in model.named_parameters()}
    length, size = len(tokens), config.head_dim
    places = torch.arange(length)
    distance = places[:, None] - places
    seen = (distance >= 0) & (distance < (length if window is None else window))
    angles = places.double()[:, None] * config.rope_theta ** (-torch.arange(0, size, 2).double() / size)
    turn = torch.polar(torch.ones_like(angles), angles)

    def norm(values: Tensor, name: str) -> Tensor:
        size = (values.square().mean(-1, keepdim=True) + config.norm_epsilon).sqrt()
        return values / size * weights[f"{name}.weight"]

    def rotate(heads: Tensor) -> Tensor:
        turned = torch.complex(heads[..., : size // 2], heads[..., size // 2 :]) * turn
        return torch.cat((turned.real, turned.imag), dim=-1)

    hidden = weights["embed_tokens.weight"][tokens]
    for index in range(config.num_hidden_layers):
        layer = f"layers.{index}"
        inputs = norm(hidden, f"{layer}.input_layernorm")
        query, key, value = (
            (inputs @ weights[f"{layer}.self_attn.{name}_proj.weight"].T).unflatten(-1, (-1, size)).transpose(0, 1)
            for name in "qkv"
        )
        shared = config.num_attention_heads // config.num_key_value_heads
        query = rotate(norm(query, f"{layer}.self_attn.q_norm"))
        key = rotate(norm(key, f"{layer}.self_attn.k_norm")).repeat_interleave(shared, dim=0)
        scores = (query @ key.mT * size**-0.5).masked_fill(~seen, -torch.inf)
        mixed = (scores.softmax(-1) @ value.repeat_interleave(shared, dim=0)).transpose(0, 1).flatten(1)
        hidden = hidden + mixed @ weights[f"{layer}.self_attn.o_proj.weight"].T
        inputs = norm(hidden, f"{layer}.post_attention_layernorm")
        gate = inputs @ weights[f"{layer}.mlp.gate_proj.weight"].T
        up = inputs @ weights[f"{layer}.mlp.up_proj.weight"].T
        hidden = hidden + (gate * gate.sigmoid() * up) @ weights[f"{layer}.mlp.down_proj.weight"].T
    return norm(hidden, "norm") @ weights["embed_tokens.weight"].T


@pytest.mark.parametrize("key_value_heads", [1, 2, 4])
@pytest.mark.parametrize(("plugin", "window"), [(TransformerPlugin(), None), (SlidingWindowPlugin(), 4)])
def test_logits_are_those_of_a_plain_softmax_decoder(
    plugin: MixerPlugin, window: int | None, key_value_heads: int
) -> None:
    model = build(plugin, num_attention_heads=4, num_key_value_heads=key_value_heads)
    tokens = random_tokens(2, LENGTH, model.config.vocab_size)
    with torch.no_grad():
        logits = model(tokens).logits
    for row, own in zip(tokens, logits, strict=True):
        assert largest_difference(own, plain_decoder(model, row, window)) < 1e-4


@pytest.mark.parametrize("window", [LENGTH, LENGTH + 1, 1000])
def test_a_window_that_covers_the_sequence_is_full_attention(window: int) -> None:
    full, windowed = build(TransformerPlugin()), build(SlidingWindowPlugin(), sliding_window=window)
    tokens = random_tokens(2, LENGTH, full.config.vocab_size)
    with torch.no_grad():
        assert largest_difference(full(tokens).logits, windowed(tokens).logits) < 1e-4
    expected = training_gradients(full, tokens)
    for name, gradient in training_gradients(windowed, tokens).items():
        assert largest_difference(gradient, expected[name]) < 1e-4, name


def test_a_window_that_is_one_token_short_is_not_full_attention() -> None:
    full, windowed = build(TransformerPlugin()), build(SlidingWindowPlugin(), sliding_window=LENGTH - 1)
    tokens = random_tokens(1, LENGTH, full.config.vocab_size)
    with torch.no_grad():
        difference = (full(tokens).logits - windowed(tokens).logits).abs().amax(dim=(0, 2))
    assert difference[:-1].max() < 1e-4 < difference[-1]


@pytest.mark.parametrize("plugin", [TransformerPlugin(), SlidingWindowPlugin()], ids=lambda plugin: plugin.name)
@pytest.mark.parametrize(("preset", "size"), [("30m", 29_934_592), ("119m", 118_970_368)])
def test_presets_have_the_parameters_of_their_names_within_two_percent(
    plugin: MixerPlugin, preset: str, size: int
) -> None:
    """The published PMNets of these names have `size` parameters."""
    with torch.device("meta"):
        counts = count_parameters(plugin, plugin.build(plugin.presets[preset]))
    assert abs(sum(counts.values()) / size - 1) < 0.02


def test_both_baselines_have_the_same_parameters_at_every_preset() -> None:
    for preset in TransformerPlugin.presets:
        with torch.device("meta"):
            models = [plugin.build(plugin.presets[preset]) for plugin in (TransformerPlugin(), SlidingWindowPlugin())]
        shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in models]
        assert shapes[0] == shapes[1]


def test_a_saved_decoder_is_found_by_transformers_auto_class(tmp_path) -> None:
    model = build(SlidingWindowPlugin())
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokens = random_tokens(1, LENGTH, model.config.vocab_size)
    assert loaded.config.sliding_window == model.config.sliding_window
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, model(tokens).logits)


PLUGINS = [TransformerPlugin(), SlidingWindowPlugin()]


# transformers 5.23 has a second name for the switch; the first is known to all versions.
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_.*able. is deprecated")
@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
@pytest.mark.parametrize("changes", [{}, {"attention_dropout": 0.4}], ids=["plain", "dropout"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_stores_less_and_changes_no_gradient(
    plugin: MixerPlugin, changes: dict[str, object], reentrant: bool
) -> None:
    model = build(plugin, **changes)
    tokens = random_tokens(2, LENGTH, model.config.vocab_size)
    torch.manual_seed(3)
    plain, stored = training_gradients(model, tokens), stored_bytes(model, tokens)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert stored_bytes(model, tokens) < stored / 3
    torch.manual_seed(3)
    for name, gradient in training_gradients(model, tokens).items():
        assert torch.equal(gradient, plain[name]), name
    model.gradient_checkpointing_disable()
    assert stored_bytes(model, tokens) == stored


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_.*able. is deprecated")
@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_a_checkpointed_layer_in_training_takes_no_state(plugin: MixerPlugin) -> None:
    model = build(plugin)
    tokens = random_tokens(2, LENGTH, model.config.vocab_size)
    model.gradient_checkpointing_enable()
    logits, state = feed(model, tokens, [LENGTH])
    with torch.no_grad():
        assert largest_difference(logits, model(tokens).logits) < 1e-5
    model.train()
    for options in ({"use_cache": True}, {"past_key_values": state}):
        with pytest.raises(ValueError, match="gradient checkpointing in training mode cannot go with a cache"):
            model(tokens, **options)


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_arguments_are_followed_or_refused(plugin: MixerPlugin) -> None:
    """Wrappers such as PEFT pass all arguments that they know, most of them as None."""
    model = build(plugin)
    tokens = random_tokens(2, 8, model.config.vocab_size)
    with torch.no_grad():
        output = model(tokens, labels=tokens, inputs_embeds=None, output_attentions=False, return_dict=True)
        loss, logits = model(tokens, labels=tokens, return_dict=False)
    assert torch.equal(loss, output.loss) and torch.equal(logits, output.logits)
    with pytest.raises(TypeError, match="the model has no argument 'position_ids'"):
        model(tokens, position_ids=torch.arange(8))
