"""What the plugin `mamba2` has to itself: a limit on step sizes, its parameters and settings, published presets."""

import dataclasses

import pytest
import torch
from state_space_models import MAMBA2, check_parameters, tokens

from seqbench.accounting.counting import count_parameters
from seqbench.contracts import with_settings
from seqbench.errors import RequestError
from seqbench_baselines.mamba2.plugin import Mamba2Settings


def test_a_limit_on_step_sizes_is_that_of_transformers_and_refused_as_a_setting(tmp_path):
    config = MAMBA2.build().config
    config.time_step_limit = (0.02, 0.05)
    theirs = MAMBA2.theirs(config).eval()
    theirs.save_pretrained(tmp_path)
    ours, input_ids = MAMBA2.ours.from_pretrained(tmp_path).eval(), tokens(2, 20)
    torch.testing.assert_close(ours(input_ids).logits, theirs(input_ids).logits, rtol=1e-4, atol=1e-5)
    with pytest.raises(RequestError, match=r"time_step_limit \(0.02, 0.05\) is not supported"):
        MAMBA2.plugin.settings_from(ours.config)


def test_the_settings_of_a_saved_checkpoint_are_those_it_was_built_with(tmp_path):
    for config in MAMBA2.variants:
        MAMBA2.build(config).save_pretrained(tmp_path)
        assert MAMBA2.plugin.settings_from(MAMBA2.ours.from_pretrained(tmp_path).config) == config


@pytest.mark.parametrize("config", [*MAMBA2.variants, Mamba2Settings()])
def test_parameters_follow_the_closed_form_and_groups_sum_to_the_total(config):
    hidden, channels, heads = config.hidden_size, config.channels, config.num_heads
    convolved = channels + 2 * config.n_groups * config.state_size
    projected = channels + convolved + heads
    per_block = hidden * (projected + channels) + config.use_bias * (projected + hidden)
    per_block += convolved * (config.conv_kernel + config.use_conv_bias) + 3 * heads + channels + hidden
    groups = count_parameters(MAMBA2.plugin, MAMBA2.build(config))
    check_parameters(groups, config, per_block)
    assert groups["scan"] == config.num_hidden_layers * 3 * heads


def test_the_published_preset_has_the_published_size():
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in MAMBA2.plugin.build(MAMBA2.plugin.presets["130m"]).parameters())
    # Called 130m by its authors.
    assert size == pytest.approx(129e6, rel=0.01)


def test_settings_that_do_not_divide_are_refused():
    with pytest.raises(RequestError, match="num_heads must divide the 128 channels"):
        with_settings(Mamba2Settings(), {"num_heads": "5"}, "model mamba2")
    with pytest.raises(RequestError, match="n_groups must divide num_heads 4"):
        with_settings(Mamba2Settings(), {"n_groups": "3"}, "model mamba2")


def test_at_any_width_there_are_heads_and_groups_that_divide():
    published = dataclasses.replace(MAMBA2.plugin.presets["130m"], n_groups=8)
    assert MAMBA2.plugin.with_width(published, 768) == published
    for width in range(8, 200, 8):
        assert MAMBA2.plugin.with_width(published, width).num_heads <= 24
        assert MAMBA2.plugin.with_width(Mamba2Settings(), width).num_heads == 4
