"""What the plugin `mamba2` has to itself: a limit on step sizes, its parameters and settings, published presets."""

import dataclasses

import pytest
import torch
from state_space_models import MAMBA2, check_parameters

from seqbench.accounting.counting import count_parameters
from seqbench.contracts import with_settings
from seqbench.errors import RequestError

TINY = MAMBA2.plugin.presets["tiny"]


def test_a_limit_on_step_sizes_is_refused(tmp_path):
    model = MAMBA2.build()
    model.config.time_step_limit = (0.02, 0.05)
    model.save_pretrained(tmp_path)
    with pytest.raises(RequestError, match=r"time_step_limit \(0.02, 0.05\) is not supported"):
        MAMBA2.ours.from_pretrained(tmp_path)


def test_the_settings_of_a_saved_checkpoint_are_those_it_was_built_with(tmp_path):
    for config in MAMBA2.variants:
        MAMBA2.build(config).save_pretrained(tmp_path)
        assert MAMBA2.plugin.settings_from(MAMBA2.ours.from_pretrained(tmp_path).config) == config


@pytest.mark.parametrize("config", [*MAMBA2.variants, TINY])
def test_parameters_follow_the_closed_form_and_groups_sum_to_the_total(config):
    hidden, channels, heads = config.hidden_size, config.expand * config.hidden_size, config.num_heads
    convolved = channels + 2 * config.n_groups * config.state_size
    projected = channels + convolved + heads
    per_block = hidden * (projected + channels) + config.use_bias * (projected + hidden)
    per_block += convolved * (config.short_convolution + config.use_conv_bias) + 3 * heads + channels + hidden
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
        with_settings(TINY, {"num_heads": "5"}, "model mamba2")
    with pytest.raises(RequestError, match="n_groups must divide num_heads 4"):
        with_settings(TINY, {"n_groups": "3"}, "model mamba2")
    with pytest.raises(RequestError, match="extra_head_dim must leave each head a channel: more than -32"):
        with_settings(TINY, {"extra_head_dim": "-32"}, "model mamba2")


def test_at_any_width_there_are_heads_and_groups_that_divide():
    published = dataclasses.replace(MAMBA2.plugin.presets["130m"], n_groups=8)
    assert MAMBA2.plugin.with_width(published, 768) == published
    for width in range(8, 200, 8):
        assert MAMBA2.plugin.with_width(published, width).num_heads <= 24
        assert MAMBA2.plugin.with_width(TINY, width).num_heads == 4
