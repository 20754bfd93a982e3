"""The plugin `hybrid`: any pattern of mixers, each as its own plugin has it."""

import pytest
import torch
from model_support import bytes_in, feed, largest_difference, random_tokens
from transformers import AutoModelForCausalLM

from seqbench.accounting.counting import count_parameters, non_embedding
from seqbench.contracts import with_settings
from seqbench.errors import RequestError
from seqbench.mixers.decoder import MixerForCausalLM
from seqbench_baselines.gated_convolution.plugin import GatedConvolutionPlugin
from seqbench_baselines.hybrid.plugin import HybridPlugin, HybridSettings, parts_of

PLUGIN = HybridPlugin()
SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3, "vocab_size": 50}
MIXED = ("mamba2(num_heads=2; state_size=8)", "gated-convolution(filter_length=6)", "sliding-window(sliding_window=3)")


def settings(*layers: str, **changes: object) -> HybridSettings:
    return HybridSettings(**{**SMALL, "layers": layers, **changes})


def build(config: HybridSettings) -> MixerForCausalLM:
    torch.manual_seed(0)
    model = PLUGIN.build(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_the_pattern_is_repeated_to_the_depth() -> None:
    config = settings("mamba2", "gated-convolution", "gated-convolution", num_hidden_layers=5)
    names = [part.name for part in parts_of(config)]
    assert names == ["mamba2", "gated-convolution", "gated-convolution", "mamba2", "gated-convolution"]
    groups = [PLUGIN.parameter_group(name) for name, _ in build(config).named_parameters() if ".3.mixer." in name]
    assert set(groups) == {"mamba2"}


def test_one_mixer_alone_is_its_own_plugin() -> None:
    """Same parameters under longer names, same logits, same counts."""
    own = GatedConvolutionPlugin()
    alone = own.config_class(**SMALL, filter_length=6, short_convolution=3)
    config = settings("gated-convolution(filter_length=6)", short_convolution=3)
    hybrid, plain = build(config), own.build(alone).eval()
    renamed = {
        name.replace(".mixer.gated_convolution.", ".mixer.").replace(
            ".mixer.short_convolution.", ".short_convolution."
        ): tensor
        for name, tensor in hybrid.state_dict().items()
    }
    plain.load_state_dict(renamed)
    tokens = random_tokens(2, 11, 50)
    with torch.no_grad():
        assert torch.equal(hybrid(tokens).logits, plain(tokens).logits)
    for length in (1, 5, 40):
        assert PLUGIN.flops(config, length) == own.flops(alone, length)
        assert PLUGIN.state_bytes(config, length) == own.state_bytes(alone, length)
    assert PLUGIN.receptive_field(config) == own.receptive_field(alone) == 3 * (5 + 2) + 1


def test_parts_of_different_kinds_stream_as_one_model(tmp_path) -> None:
    config = settings(*MIXED)
    model, tokens = build(config), random_tokens(2, 23, 50)
    with torch.no_grad():
        whole = model(tokens).logits
    pieces, state = feed(model, tokens, [1, 9, 2, 11])
    assert largest_difference(whole, pieces) < 1e-5
    assert bytes_in(state) / 2 == PLUGIN.state_bytes(config, 23)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, whole)
    assert PLUGIN.settings_from(again.config) == config


def test_each_part_has_the_switches_of_its_own_plugin_unless_the_hybrid_says_otherwise() -> None:
    own = PLUGIN.confounds(settings("mamba2", "sliding-window"))
    assert "4 taps" in own["short convolution"] and "sliding-window: none" in own["short convolution"]
    assert "sliding-window: rotary" in own["position encoding"]
    without = PLUGIN.confounds(settings("mamba2", "sliding-window", short_convolution=0, position_encoding="none"))
    assert without["short convolution"] == without["position encoding"] == "none"


def test_matrices_and_versions_are_those_of_the_parts() -> None:
    config = settings(*MIXED)
    name = "model.layers.0.mixer.mamba2.in_proj.weight"
    assert PLUGIN.matrix_parts(config, name) == (64, 64, 8, 8, 2)
    assert PLUGIN.matrix_parts(config, "model.layers.1.mixer.gated_convolution.taps") == ()
    assert set(PLUGIN.resolved_config(config)) == {"mamba2", "gated-convolution", "sliding-window"}


@pytest.mark.parametrize(
    ("layers", "complaint"),
    [
        (("pmnet",), "layers: pmnet is no mixer"),
        (("hybrid",), "layers: hybrid is no mixer"),
        (("pam",), "pam has a block of its own"),
        (("mambo2",), "did you mean"),
        (("mamba2(state=3)",), "no field 'state'"),
        (("mamba2(state_size)",), "'state_size' in 'mamba2(state_size)' is not field=value"),
        (("mamba2(",), "type NAME, or NAME(field=value"),
        (("sliding-window(hidden_size=8)",), "hidden_size is the hybrid's"),
    ],
)
def test_what_cannot_be_a_part_is_refused(layers: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(RequestError) as refused:
        settings(*layers)
    assert complaint in str(refused.value)


def test_the_command_line_gives_a_pattern() -> None:
    changed = with_settings(PLUGIN.presets["tiny"], {"layers": "mamba2, mamba2(num_heads=2), sliding-window"}, "model")
    assert [part.name for part in parts_of(changed)] == ["mamba2", "mamba2", "sliding-window", "mamba2"]


def test_width_and_depth_are_the_hybrids() -> None:
    config = settings("mamba2", "sliding-window")
    wider = PLUGIN.with_width(config, 64)
    assert {part.settings(wider).hidden_size for part in parts_of(wider)} == {64}
    counts = [non_embedding(count_parameters(PLUGIN, build(each))) for each in (config, wider)]
    assert counts[1] > 2 * counts[0]
