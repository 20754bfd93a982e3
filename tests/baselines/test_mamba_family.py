"""What Mamba and Mamba-2 promise alike: transformers' models to the last digits, exact carried state, inert padding."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
from model_support import stored_bytes, tensors_in, training_gradients
from state_space_models import MAMBA, MAMBA2, VOCABULARY, Architecture, loss_of, tokens
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from seqbench.errors import RequestError
from seqbench.mixers import MixerState
from seqbench.planning.initial_weights import find_initial_weights, load_weights

pytestmark = pytest.mark.transformers

NAMED = {"mamba": MAMBA, "mamba2": MAMBA2}
each_architecture = pytest.mark.parametrize("architecture", NAMED.values(), ids=NAMED.keys())


def each(*kinds: str) -> pytest.MarkDecorator:
    """Both architectures in all settings of these kinds."""
    cases = [
        pytest.param(architecture, config, id=f"{name}-{kind}-{index}")
        for name, architecture in NAMED.items()
        for kind in kinds
        for index, config in enumerate(getattr(architecture, kind))
    ]
    return pytest.mark.parametrize(("architecture", "config"), cases)


each_variant, each_unpublished, each_of_all = each("variants"), each("unpublished"), each("variants", "unpublished")


@each_variant
def test_a_checkpoint_of_transformers_loads_and_gives_its_logits_and_gradients(
    architecture: Architecture, config, tmp_path
):
    theirs = architecture.stand_in(config).eval()
    if getattr(config, "n_groups", 1) > 1 and not hasattr(theirs.backbone.layers[0].mixer.norm, "group_size"):
        pytest.skip("transformers before 5.23 norms all groups of Mamba-2 together, other than the authors' code")
    theirs.save_pretrained(tmp_path)
    ours = architecture.ours.from_pretrained(tmp_path).eval()
    input_ids = tokens(2, architecture.long)
    torch.testing.assert_close(ours(input_ids).logits, theirs(input_ids).logits, rtol=1e-4, atol=1e-5)
    loss_of(ours, input_ids).backward()
    loss_of(theirs, input_ids).backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        gradient = expected[name].grad
        allowed = architecture.gradient_tolerance * gradient.abs().max().clamp(min=0.1)
        assert (parameter.grad - gradient).abs().max() < allowed, name


@each_architecture
def test_a_saved_model_loads_in_transformers_as_its_own_class(architecture: Architecture, tmp_path):
    ours = architecture.build()
    ours.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == architecture.plugin.name
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(theirs) is architecture.theirs
    assert theirs.config.architectures == [architecture.theirs.__name__]
    input_ids = tokens(2, 9)
    torch.testing.assert_close(theirs.eval()(input_ids).logits, ours(input_ids).logits, rtol=1e-4, atol=1e-5)


@each_unpublished
def test_what_transformers_classes_do_not_know_is_saved_under_a_name_of_its_own(
    architecture: Architecture, config, tmp_path
):
    ours = architecture.build(config)
    ours.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == f"seqbench-{architecture.plugin.name}"
    assert saved["architectures"] == [f"Seqbench{architecture.theirs.__name__}"]
    initial = find_initial_weights(str(tmp_path), architecture.plugin)
    assert initial.settings == config
    loaded, input_ids = AutoModelForCausalLM.from_pretrained(tmp_path).eval(), tokens(2, 9)
    assert type(loaded) is type(ours) and torch.equal(loaded(input_ids).logits, ours(input_ids).logits)


@each_variant
def test_a_checkpoint_of_transformers_is_one_to_start_from(architecture: Architecture, config, tmp_path):
    theirs = architecture.stand_in(config)
    theirs.save_pretrained(tmp_path)
    initial = find_initial_weights(str(tmp_path), architecture.plugin)
    model = load_weights(architecture.plugin.build(initial.settings), initial.folder)
    assert type(model) is architecture.ours
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


@pytest.mark.parametrize(("field", "value"), [("hidden_act", "relu"), ("residual_in_fp32", False)])
@each_architecture
def test_a_checkpoint_that_computes_otherwise_is_refused(architecture: Architecture, field, value, tmp_path):
    model = architecture.build()
    setattr(model.config, field, value)
    model.save_pretrained(tmp_path)
    for load in (architecture.ours.from_pretrained, lambda folder: find_initial_weights(folder, architecture.plugin)):
        with pytest.raises(RequestError, match=f"{field} {value!r} is not supported"):
            load(str(tmp_path))


@each_architecture
def test_training_follows_transformers_own_path(architecture: Architecture):
    ours = architecture.build().train()
    theirs = architecture.stand_in(architecture.variants[0], ours).train()
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


@each_of_all
@pytest.mark.parametrize("cuts", [(1,) * 20, (2, 2, 16), (7, 13), (3, 1, 16)])
def test_a_sequence_in_chunks_of_any_length_equals_the_whole(architecture: Architecture, config, cuts):
    model, input_ids = architecture.build(config), tokens(2, 20)
    with torch.no_grad():
        whole = model(input_ids, use_cache=True)
        cache, parts = None, []
        for piece in input_ids.split(cuts, dim=1):
            output = model(piece, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            parts.append(output.logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole.logits, rtol=1e-4, atol=1e-5)
    assert_same_state(cache, whole.past_key_values)


def assert_same_state(actual: MixerState, expected: MixerState, row: int | slice = slice(None)) -> None:
    assert torch.equal(actual.seen[row], expected.seen[row] if isinstance(row, slice) else expected.seen[0])
    for states, others in zip(tensors_in(actual.layers), tensors_in(expected.layers), strict=True):
        other = others if isinstance(row, slice) else others[0]
        torch.testing.assert_close(states[row], other, rtol=1e-4, atol=1e-5)


@each_architecture
def test_the_state_matters_to_what_follows(architecture: Architecture):
    model, input_ids = architecture.build(), tokens(2, 20)
    with torch.no_grad():
        whole, alone = model(input_ids).logits[:, 10:], model(input_ids[:, 10:]).logits
    # Beyond the reach of the convolutions: two blocks of four taps.
    assert (whole[:, 7:] - alone[:, 7:]).abs().max() > 1e-3


@pytest.mark.parametrize(("left", "right"), [(5, 0), (0, 5), (3, 4), (0, 13), (13, 0)])
@each_of_all
def test_padding_on_either_side_changes_neither_real_tokens_nor_state(architecture: Architecture, config, left, right):
    model, input_ids = architecture.build(config), tokens(2, 14)
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


@each_architecture
def test_gradients_of_real_tokens_are_untouched_by_padding(architecture: Architecture):
    model, input_ids = architecture.build(), tokens(1, 10)
    gradients = []
    for left, right in ((0, 0), (3, 2)):
        model.zero_grad()
        padded = F.pad(input_ids, (left, right), value=7)
        mask = F.pad(torch.ones_like(input_ids), (left, right))
        logits = model(padded, attention_mask=mask).logits[:, left : left + 10]
        F.cross_entropy(logits.flatten(0, 1), tokens(1, 10, seed=3).flatten()).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


@each_architecture
def test_carried_state_cuts_the_graph(architecture: Architecture):
    model = architecture.build().train()
    first = model(tokens(1, 5), use_cache=True)
    cache = first.past_key_values
    assert not any(state.requires_grad for state in tensors_in(cache.layers))


@each_architecture
def test_under_bf16_autocast_scan_and_residual_stay_in_fp32(architecture: Architecture):
    model, input_ids = architecture.build(), tokens(2, 30)
    with torch.no_grad():
        exact = model(input_ids).logits
        with torch.autocast("cpu", torch.bfloat16):
            output = model(input_ids, use_cache=True)
    assert all(state.dtype == torch.float32 for state in tensors_in(output.past_key_values.layers))
    assert (output.logits.float() - exact).abs().max() < 0.03 * exact.abs().max()


@each_of_all
@pytest.mark.parametrize("length", [1, 33, 150])
def test_declared_flops_are_those_of_torchs_counter(architecture: Architecture, config, length: int):
    model = architecture.build(config)
    with FlopCounterMode(display=False) as counter:
        model(tokens(1, length))
    declared = architecture.plugin.flops(config, length)
    assert counter.get_total_flops() == declared.forward_total
    assert declared.training_total == 3 * declared.forward_total
    with FlopCounterMode(display=False) as counter:
        model(tokens(1, length)).logits.sum().backward()
    # The scan of Mamba-2 has gradients of its own, which compute some of its products again.
    assert counter.get_total_flops() == declared.training_total or architecture is MAMBA2


@each_architecture
def test_presets_have_the_sizes_in_their_names(architecture: Architecture):
    sizes = {}
    for name, config in architecture.plugin.presets.items():
        with torch.device("meta"):
            sizes[name] = sum(parameter.numel() for parameter in architecture.plugin.build(config).parameters())
    assert sizes["tiny"] == pytest.approx(290_000, rel=0.05)
    assert sizes["30m"] == pytest.approx(30e6, rel=0.03) and sizes["119m"] == pytest.approx(119e6, rel=0.03)


@each_of_all
@pytest.mark.parametrize("length", [1, 3, 70])
def test_declared_state_bytes_are_held_by_the_cache_at_any_length(architecture: Architecture, config, length):
    with torch.no_grad():
        cache = architecture.build(config)(tokens(1, length), use_cache=True).past_key_values
    tensors, declared = [*tensors_in(cache.layers), cache.seen], architecture.plugin.state_bytes(config, length)
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) == declared
    assert sum(tensor.untyped_storage().nbytes() for tensor in tensors) == declared


# transformers 5.23 has a second name for the switch; the first is known to all versions.
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_.*able. is deprecated")
@each_of_all
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_stores_less_and_changes_no_gradient(architecture: Architecture, config, reentrant):
    model, input_ids = architecture.build(dataclasses.replace(config, num_hidden_layers=6)), tokens(2, 40)
    mask = torch.ones_like(input_ids)
    mask[0, :7] = 0
    plain, stored = training_gradients(model, input_ids, mask), stored_bytes(model, input_ids)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert stored_bytes(model, input_ids) < stored / 3
    own = training_gradients(model, input_ids, mask)
    assert all(torch.equal(own[name], gradient) for name, gradient in plain.items())
    with pytest.raises(ValueError, match="gradient checkpointing in training mode cannot go with a cache"):
        model(input_ids, use_cache=True)
    with torch.no_grad():
        assert torch.equal(model.eval()(input_ids, use_cache=True).logits, model(input_ids).logits)
    model.gradient_checkpointing_disable()
    assert stored_bytes(model, input_ids) == stored


@each_architecture
def test_the_embedding_is_found_and_exchanged_as_transformers_does_it(architecture: Architecture):
    model = architecture.build()
    assert model.get_input_embeddings() is model.backbone.embeddings
    model.resize_token_embeddings(VOCABULARY + 7)
    assert model.backbone.embeddings.weight.shape[0] == model(tokens(1, 3)).logits.shape[-1] == VOCABULARY + 7
    assert model.lm_head.weight is model.backbone.embeddings.weight


@each_architecture
def test_arguments_of_other_models_are_refused(architecture: Architecture):
    model, input_ids = architecture.build(), tokens(2, 6)
    assert torch.equal(model(input_ids, return_dict=False)[0], model(input_ids, inputs_embeds=None).logits)
    with pytest.raises(TypeError, match="the model has no argument 'cache_params'"):
        model(input_ids, cache_params=MixerState())


@each_architecture
def test_generate_continues_from_the_state_and_equals_transformers(architecture: Architecture):
    ours = architecture.build()
    theirs = architecture.stand_in(architecture.variants[0], ours).eval()
    prompt = tokens(2, 6)
    arguments = {"max_new_tokens": 7, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(ours.generate(prompt, **arguments), theirs.generate(prompt, **arguments))


@each_architecture
def test_confounds_name_the_convolution_and_the_kernel_path(architecture: Architecture):
    plugin, config = architecture.plugin, architecture.variants[0]
    confounds = plugin.confounds(config)
    assert confounds["short convolution"] == "4 taps per channel inside each mixer"
    assert confounds["position encoding"] == "none"
    assert "scan" in confounds["kernel path"]
    assert plugin.attention_reach(config) is None and plugin.receptive_field(config) is None


@each_architecture
def test_first_values_are_those_of_transformers_in_distribution(architecture: Architecture):
    """Mean and deviation of every parameter of a model that is wide enough for them to be sharp."""
    torch.manual_seed(1)
    config = dataclasses.replace(architecture.plugin.presets["tiny"], hidden_size=128)
    ours, theirs = architecture.plugin.build(config), architecture.stand_in(config)
    assert {name for name, _ in ours.named_parameters()} == {name for name, _ in theirs.named_parameters()}
    for name, own in ours.named_parameters():
        parameter = theirs.get_parameter(name)
        assert own.shape == parameter.shape
        if own.numel() > 1000:
            deviation, mean = parameter.std().item(), parameter.mean().item()
            assert own.std().item() == pytest.approx(deviation, rel=0.1, abs=1e-7), name
            assert own.mean().item() == pytest.approx(mean, abs=0.2 * deviation + 1e-7), name
        elif "dt" not in name:
            assert torch.equal(own, parameter), name


@each_architecture
def test_initial_step_sizes_lie_between_their_bounds(architecture: Architecture):
    shape = dataclasses.replace(architecture.plugin.presets["tiny"], time_step_min=0.01, time_step_max=0.02)
    for block in architecture.plugin.build(shape).backbone.layers:
        bias = block.mixer.dt_proj.bias if architecture is MAMBA else block.mixer.dt_bias
        assert 0.01 * 0.999 <= F.softplus(bias).min() < F.softplus(bias).max() <= 0.02 * 1.001


@each_architecture
def test_initial_step_sizes_in_the_wrong_order_are_refused(architecture: Architecture):
    with pytest.raises(RequestError, match=r"time_step_min \(0.5\) must not exceed time_step_max \(0.1\)"):
        dataclasses.replace(architecture.variants[0], time_step_min=0.5)


@each_architecture
def test_the_fine_axis_is_no_setting_of_the_memory_and_matches_parameters_to_within_two_percent(
    architecture: Architecture,
):
    field, start = architecture.plugin.fine_axis.field, architecture.plugin.presets["tiny"]

    def size(more: int) -> int:
        config = dataclasses.replace(start, **{field: getattr(start, field) + more})
        return sum(parameter.numel() for parameter in architecture.plugin.build(config).parameters())

    assert field != "state_size"
    with torch.device("meta"):
        # Half of a step is the largest deviation.
        assert 0 < size(1) - size(0) == size(0) - size(-1) < 0.03 * size(0)
