"""The decoder baselines: attention over everything or over a window, positions, and sizes as their presets say."""

import dataclasses

import pytest
import torch
from model_support import feed, largest_difference, pad_rows, random_tokens, stored_bytes, training_gradients
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from seqbench.accounting.counting import count_parameters
from seqbench.contracts import with_settings
from seqbench.errors import RequestError
from seqbench.mixers import MixerPlugin
from seqbench.nn import alibi_slopes
from seqbench.plugins.kernels import forget_taken_paths, taken_paths
from seqbench.testing.model.accounting import count_flops
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
    """Logits of one sequence in fp64: softmax over a matrix of scores, rotation by complex numbers.

    ALiBi for two or four heads: slopes of 1/16 and 1/256, or of 1/4 to 1/256. Hard ALiBi: the first half of the heads
    sees one token, two, and so on.
    """
    config, encoding = model.config, model.config.position_encoding
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

    bias = torch.zeros(config.num_attention_heads, length, length).double()
    for head in range(config.num_attention_heads):
        if encoding == "alibi":
            bias[head] = -distance * 256.0 ** (-(head + 1) / config.num_attention_heads)
        elif encoding == "hard-alibi" and head < config.num_attention_heads // 2:
            bias[head].masked_fill_(distance > head, -torch.inf)

    def rotate(heads: Tensor) -> Tensor:
        if encoding != "rotary":
            return heads
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
        scores = (query @ key.mT * size**-0.5 + bias).masked_fill(~seen, -torch.inf)
        mixed = (scores.softmax(-1) @ value.repeat_interleave(shared, dim=0)).transpose(0, 1).flatten(1)
        hidden = hidden + mixed @ weights[f"{layer}.self_attn.o_proj.weight"].T
        inputs = norm(hidden, f"{layer}.post_attention_layernorm")
        gate = inputs @ weights[f"{layer}.mlp.gate_proj.weight"].T
        up = inputs @ weights[f"{layer}.mlp.up_proj.weight"].T
        hidden = hidden + (gate * gate.sigmoid() * up) @ weights[f"{layer}.mlp.down_proj.weight"].T
    return norm(hidden, "norm") @ weights["embed_tokens.weight"].T


ENCODINGS = ["rotary", "none", "alibi", "hard-alibi"]
WINDOWS = pytest.mark.parametrize(("plugin", "window"), [(TransformerPlugin(), None), (SlidingWindowPlugin(), 4)])


@pytest.mark.parametrize(("key_value_heads", "encoding"), [(1, "rotary"), (4, "rotary"), *((2, e) for e in ENCODINGS)])
@WINDOWS
def test_logits_are_those_of_a_plain_softmax_decoder(
    plugin: MixerPlugin, window: int | None, key_value_heads: int, encoding: str
) -> None:
    model = build(plugin, num_attention_heads=4, num_key_value_heads=key_value_heads, position_encoding=encoding)
    tokens = random_tokens(2, LENGTH, model.config.vocab_size)
    with torch.no_grad():
        logits = model(tokens).logits
    for row, own in zip(tokens, logits, strict=True):
        assert largest_difference(own, plain_decoder(model, row, window)) < 1e-4


@pytest.mark.parametrize("encoding", ENCODINGS[1:])
@WINDOWS
def test_positions_that_are_masks_go_on_where_a_row_ended(
    plugin: MixerPlugin, window: int | None, encoding: str
) -> None:
    """Chunks of any size behind prompts of different length, one of them empty, padded on either side."""
    model = build(plugin, num_attention_heads=4, position_encoding=encoding)
    rows = [random_tokens(1, length, model.config.vocab_size, seed=length)[0] for length in (11, 6, 0, 1)]
    tokens, mask = pad_rows(rows, (0, 2, 11, 0), 11)
    following = random_tokens(4, 9, model.config.vocab_size, seed=2)
    with torch.no_grad():
        start = model(tokens, attention_mask=mask, use_cache=True)
    logits, _ = feed(model, following, [1, 1, 5, 2], start.past_key_values)
    for index, row in enumerate(rows):
        alone = plain_decoder(model, torch.cat((row, following[index])), window)
        own = torch.cat((start.logits[index, mask[index].bool()], logits[index]))
        assert largest_difference(own, alone) < 1e-4


@pytest.mark.parametrize("encoding", ENCODINGS)
@WINDOWS
def test_declared_flops_are_the_pairs_that_each_head_sees(
    plugin: MixerPlugin, window: int | None, encoding: str
) -> None:
    changes = {"num_attention_heads": 6, "num_key_value_heads": 2, "position_encoding": encoding}
    config = dataclasses.replace(plugin.presets["tiny"], **changes)
    for length in (2, 48, 192):
        _, inside_masks, _ = count_flops(plugin.build(config).eval(), random_tokens(1, length, config.vocab_size))
        assert plugin.flops(config, length).forward_total == inside_masks


def test_without_positions_the_order_of_earlier_tokens_is_seen_by_nothing_in_one_layer() -> None:
    tokens = random_tokens(1, 12, 384)
    turned = torch.cat((tokens[:, :-1].flip(1), tokens[:, -1:]), dim=1)
    change = {}
    for encoding in ENCODINGS:
        model = build(TransformerPlugin(), num_hidden_layers=1, position_encoding=encoding)
        with torch.no_grad():
            change[encoding] = largest_difference(model(tokens).logits[:, -1], model(turned).logits[:, -1])
    assert change["none"] < 1e-5
    # Of two heads one sees the token alone with hard ALiBi, and the other is without positions.
    assert change["hard-alibi"] < 1e-5
    assert min(change["rotary"], change["alibi"]) > 1e-2


def test_slopes_are_those_of_the_paper() -> None:
    """Section 3 of arXiv 2108.12409 gives 8 heads 1/2 to 1/256; other numbers take from the next higher power's too."""
    assert alibi_slopes(8) == [2.0**-power for power in range(1, 9)]
    assert alibi_slopes(16)[:2] == [2**-0.5, 2**-1.0]
    assert alibi_slopes(1) == [2**-8.0]
    assert alibi_slopes(7) == [2**-2.0, 2**-4.0, 2**-6.0, 2**-8.0, 2**-1.0, 2**-3.0, 2**-5.0]


@pytest.mark.parametrize("encoding", ["alibi", "hard-alibi"])
def test_an_implementation_that_knows_no_such_positions_is_refused(encoding: str) -> None:
    model = build(SlidingWindowPlugin(), position_encoding=encoding)
    model.set_attn_implementation("eager")
    with pytest.raises(ValueError, match=f"'eager' cannot apply position_encoding {encoding}; choose sdpa"):
        model(random_tokens(1, 3, model.config.vocab_size))
    path = SlidingWindowPlugin().confounds(SlidingWindowPlugin().settings_from(model.config))["kernel path"]
    assert path == "scaled_dot_product_attention with a mask of all pairs"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_odd_heads_can_only_not_be_turned(encoding: str) -> None:
    changes = {"head_dim": 5, "position_encoding": encoding}
    if encoding == "rotary":
        with pytest.raises(RequestError, match="head_dim must be even for rotary positions, not 5"):
            dataclasses.replace(TransformerPlugin.presets["tiny"], **changes)
    else:
        assert build(TransformerPlugin(), **changes).config.head_dim == 5


@pytest.mark.parametrize(
    "change",
    [{"short_convolution": 3}, {"norm": "layer"}, {"feed_forward": "none"}, {"position_encoding": "learned"}, {}],
    ids=str,
)
@pytest.mark.parametrize("plugin", [TransformerPlugin(), SlidingWindowPlugin()], ids=lambda plugin: plugin.name)
def test_every_switch_of_the_kit_works_token_by_token(plugin: MixerPlugin, change: dict[str, object]) -> None:
    """Steps of one token know the plain decoder alone, and leave the others to the ordinary call."""
    model = build(plugin, **change)
    tokens = random_tokens(2, 20, model.config.vocab_size)
    with torch.no_grad():
        whole = model(tokens).logits
    forget_taken_paths()
    assert largest_difference(feed(model, tokens, [7, *[1] * 13])[0], whole) < 1e-4
    stepped = "decoding-step" in taken_paths()["sliding_window_attention"]
    assert stepped == (plugin.name == "sliding-window" and not change)


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
