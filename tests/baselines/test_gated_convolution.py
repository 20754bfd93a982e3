"""The plugin `gated-convolution`: long convolutions by FFT that equal the definition, and an exact carried state."""

import dataclasses

import pytest
import torch
from model_support import (
    bytes_in,
    feed,
    largest_difference,
    normal,
    pad_rows,
    random_tokens,
    relative_difference,
    stored_bytes,
    training_gradients,
)
from torch import Tensor
from transformers import AutoModelForCausalLM

from seqbench.accounting.counting import count_parameters
from seqbench.contracts import with_settings
from seqbench.errors import RequestError
from seqbench.mixers.decoder import MixerForCausalLM
from seqbench.testing import check_model_plugin
from seqbench_baselines.gated_convolution.convolution import (
    SHORT,
    causal_convolution,
    causal_convolution_reference,
)
from seqbench_baselines.gated_convolution.plugin import GatedConvolutionPlugin

PLUGIN = GatedConvolutionPlugin()
LENGTH = 63
SMALL = PLUGIN.config_class(hidden_size=16, intermediate_size=16, num_hidden_layers=2, filter_length=24)
# New tokens, kept inputs, taps: filters shorter and longer than what there is, at lengths that are no power of two.
SIZES = [
    (1, 0, 5),
    (1, 4, 5),
    (SHORT, 0, 2),
    (SHORT, 7, 31),
    (SHORT + 1, 0, 2),
    (SHORT + 1, 60, 61),
    (63, 0, 200),
    (63, 0, 63),
    (63, 20, 21),
    (63, 62, 63),
    (63, 5, 200),
    (63, 60, 9),
    (64, 0, 65),
]


def build(**changes: object) -> MixerForCausalLM:
    settings = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 3, "filter_length": 20, **changes}
    config = with_settings(PLUGIN.presets["tiny"], {name: str(value) for name, value in settings.items()}, "model")
    torch.manual_seed(0)
    model = PLUGIN.build(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif not name.endswith("taps"):
                parameter.mul_(6)
    return model


def with_gradients(convolve, length: int, kept: int, taps: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The output, and the gradients of a random function of it."""
    shapes = ((2, length, 60), (2, kept, 60), (60, taps))
    leaves = [normal(*shape, seed=seed, dtype=dtype).requires_grad_() for seed, shape in enumerate(shapes)]
    output = convolve(*leaves)
    return output.detach(), *torch.autograd.grad((output * normal(*output.shape, seed=3, dtype=dtype)).sum(), leaves)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 5e-6)])
@pytest.mark.parametrize(("length", "kept", "taps"), SIZES)
def test_the_fast_convolution_and_its_gradients_equal_the_definition(
    length: int, kept: int, taps: int, dtype: torch.dtype, tolerance: float
) -> None:
    expected = with_gradients(causal_convolution_reference, length, kept, taps, torch.float64)
    for actual, own in zip(with_gradients(causal_convolution, length, kept, taps, dtype), expected, strict=True):
        assert actual.dtype == dtype and actual.shape == own.shape
        if actual.numel():
            assert relative_difference(actual, own) < tolerance


def test_the_definition_is_that_of_a_causal_convolution() -> None:
    inputs, taps = normal(2, LENGTH, 6, dtype=torch.float64), normal(6, 20, seed=1, dtype=torch.float64)
    expected = torch.zeros_like(inputs)
    for place in range(LENGTH):
        for distance in range(min(20, place + 1)):
            expected[:, place] += taps[:, distance] * inputs[:, place - distance]
    assert relative_difference(causal_convolution_reference(inputs, inputs[:, :0], taps), expected) < 1e-14
    cut = 30
    continued = causal_convolution_reference(inputs[:, cut:], inputs[:, cut - 19 : cut], taps)
    assert relative_difference(continued, expected[:, cut:]) < 1e-14


def test_gradients_of_the_definition_are_those_of_finite_differences() -> None:
    leaves = [normal(*shape, dtype=torch.float64).requires_grad_() for shape in ((2, 5, 3), (2, 3, 3), (3, 4))]
    assert torch.autograd.gradcheck(causal_convolution_reference, leaves)


def test_half_precision_inputs_are_convolved_in_fp32() -> None:
    inputs, taps = normal(2, 200, 8), normal(8, 200, seed=1)
    exact = causal_convolution_reference(inputs.bfloat16().double(), inputs[:, :0].double(), taps.bfloat16().double())
    output = causal_convolution(inputs.bfloat16(), inputs[:, :0].bfloat16(), taps.bfloat16())
    assert output.dtype == torch.float32
    assert relative_difference(output, exact) < 5e-6


def plain_decoder(model: MixerForCausalLM, tokens: Tensor) -> Tensor:
    """Logits of one sequence in fp64: the formulas, with a loop over the taps."""
    config = model.config
    weights = {name.removeprefix("model."): tensor.detach().double() for name, tensor in model.named_parameters()}

    def norm(values: Tensor, name: str) -> Tensor:
        scale = (values.square().mean(-1, keepdim=True) + config.norm_epsilon).sqrt()
        return values / scale * weights[f"{name}.weight"]

    hidden = weights["embed_tokens.weight"][tokens]
    for index in range(config.num_hidden_layers):
        layer = f"layers.{index}"
        inputs = norm(hidden, f"{layer}.mixer_norm")
        convolved = weights[f"{layer}.mixer.bias"].repeat(len(tokens), 1)
        for distance, tap in enumerate(weights[f"{layer}.mixer.taps"].T[: len(tokens)]):
            convolved[distance:] += tap * inputs[: len(tokens) - distance]
        gate = inputs @ weights[f"{layer}.mixer.proj.weight"].T + weights[f"{layer}.mixer.proj.bias"]
        hidden = hidden + gate * convolved
        inputs = norm(hidden, f"{layer}.mlp_norm")
        gate = inputs @ weights[f"{layer}.mlp.gate_proj.weight"].T
        up = inputs @ weights[f"{layer}.mlp.up_proj.weight"].T
        hidden = hidden + (gate * gate.sigmoid() * up) @ weights[f"{layer}.mlp.down_proj.weight"].T
    return norm(hidden, "norm") @ weights["embed_tokens.weight"].T


@pytest.mark.parametrize("filter_length", [2, 20, LENGTH, 200])
def test_logits_are_those_of_the_published_formula(filter_length: int) -> None:
    model = build(filter_length=filter_length)
    tokens = random_tokens(2, LENGTH, 50)
    with torch.no_grad():
        logits = model(tokens).logits
    for row, own in zip(tokens, logits, strict=True):
        assert largest_difference(own, plain_decoder(model, row)) < 1e-4


@pytest.mark.parametrize("filter_length", [2, 9, 20, 100])
@pytest.mark.parametrize("sizes", [(1,) * LENGTH, (7, 1, 30, 2, 23), (60, 3), (2, 61)])
def test_a_sequence_in_chunks_of_any_length_equals_the_whole(sizes: tuple[int, ...], filter_length: int) -> None:
    """Also far beyond the filter's length."""
    model = build(filter_length=filter_length)
    tokens = random_tokens(2, LENGTH, 50)
    whole, state = feed(model, tokens, [LENGTH])
    parts, other = feed(model, tokens, sizes)
    assert largest_difference(parts, whole) < 1e-4
    for inputs, others in zip(other.layers, state.layers, strict=True):
        assert largest_difference(inputs, others) < 1e-4


def test_the_state_grows_to_the_filters_length_and_no_further() -> None:
    model = build(filter_length=20)
    config = dataclasses.replace(PLUGIN.presets["tiny"], hidden_size=24, num_hidden_layers=3, filter_length=20)
    sizes = []
    for length in (1, 7, 19, 20, LENGTH):
        _, state = feed(model, random_tokens(1, length, 50), [length])
        assert bytes_in(state) == PLUGIN.state_bytes(config, length)
        sizes.append(bytes_in(state))
    assert sizes[0] < sizes[1] < sizes[2] == sizes[3] == sizes[4]


def test_rows_of_different_length_continue_as_each_would_alone() -> None:
    model = build(filter_length=20)
    rows = [random_tokens(1, length, 50, seed=length)[0] for length in (3, 25, 11)]
    tokens, mask = pad_rows(rows, [22, 0, 5], 25)
    following = random_tokens(3, 6, 50)
    with torch.no_grad():
        state = model(tokens, attention_mask=mask, use_cache=True).past_key_values
        logits = model(following, past_key_values=state, use_cache=True).logits
    for index, row in enumerate(rows):
        whole, _ = feed(model, torch.cat((row, following[index])).unsqueeze(0), [len(row) + 6])
        assert largest_difference(logits[index], whole[0, len(row) :]) < 1e-4


def test_a_layer_sees_as_far_as_its_filter_and_no_farther() -> None:
    model = build(filter_length=9)
    field = PLUGIN.receptive_field(dataclasses.replace(PLUGIN.presets["tiny"], num_hidden_layers=3, filter_length=9))
    assert field == 3 * 8 + 1
    model = model.double()
    tokens = random_tokens(1, LENGTH, 50)
    changed = tokens.clone()
    changed[:, 10] = (changed[:, 10] + 1) % 50
    with torch.no_grad():
        difference = (model(tokens).logits - model(changed).logits).abs().amax(dim=(0, 2))
    assert difference[10 + field - 1] > 1e-9
    assert difference[:10].max() < 1e-12 and difference[10 + field :].max() < 1e-12


def test_every_clause_of_the_contract_holds_where_the_filter_is_shorter_than_the_sequences() -> None:
    """The default preset, which test_model_contract.py tries, has a filter that is longer than most inputs there."""

    class ShortFilters(GatedConvolutionPlugin):
        name = "short-filters"
        presets = {"tiny": SMALL}  # noqa: RUF012

    check_model_plugin(ShortFilters())


def test_a_filter_of_one_tap_is_refused() -> None:
    with pytest.raises(RequestError, match="filter_length"):
        PLUGIN.config_class(filter_length=1)


@pytest.mark.parametrize(("preset", "size"), [("30m", 29_934_592), ("119m", 118_970_368)])
def test_presets_have_the_parameters_of_their_names_within_two_percent(preset: str, size: int) -> None:
    """The published PMNets of these names have `size` parameters."""
    with torch.device("meta"):
        counts = count_parameters(PLUGIN, PLUGIN.build(PLUGIN.presets[preset]))
    assert abs(sum(counts.values()) / size - 1) < 0.02
    taps = PLUGIN.presets[preset].filter_length + 1
    assert counts["filters"] == 12 * PLUGIN.presets[preset].hidden_size * taps


def test_a_saved_model_is_found_by_transformers_auto_class(tmp_path) -> None:
    model = build()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokens = random_tokens(1, LENGTH, 50)
    assert loaded.config.filter_length == 20
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, model(tokens).logits)


# transformers 5.23 has a second name for the switch; the first is known to all versions.
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_.*able. is deprecated")
def test_gradient_checkpointing_stores_less_and_changes_no_gradient() -> None:
    model, tokens = build(), random_tokens(2, LENGTH, 50)
    plain, stored = training_gradients(model, tokens), stored_bytes(model, tokens)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert stored_bytes(model, tokens) < stored / 3
    for name, gradient in training_gradients(model, tokens).items():
        assert torch.equal(gradient, plain[name]), name
    with pytest.raises(ValueError, match="gradient checkpointing"):
        model(tokens, use_cache=True)


def test_under_bf16_autocast_only_linear_maps_run_in_bf16() -> None:
    model, tokens = build(filter_length=LENGTH).train(), random_tokens(2, LENGTH, 50)
    seen = []
    for layer in model.model.layers:
        layer.mixer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].dtype))
    exact = model(tokens).logits
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens).logits
        state = model(tokens, use_cache=True).past_key_values
    assert {inputs.dtype for inputs in state.layers} == {torch.float32} == set(seen)
    assert 0 < largest_difference(logits.float(), exact) < 0.05 * exact.abs().max()
