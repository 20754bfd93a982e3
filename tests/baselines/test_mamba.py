"""What the plugin `mamba` has to itself: its parameters and its settings."""

import pytest
from state_space_models import MAMBA, check_parameters

from seqbench.accounting.counting import count_parameters
from seqbench.contracts import with_settings
from seqbench.errors import RequestError
from seqbench_baselines.mamba.plugin import MambaPlugin, channels_of, rank_of


@pytest.mark.parametrize("config", [*MAMBA.variants, MambaPlugin.presets["tiny"]])
def test_parameters_follow_the_closed_form_and_groups_sum_to_the_total(config):
    hidden, channels, rank, state = config.hidden_size, channels_of(config), rank_of(config), config.state_size
    per_block = 3 * hidden * channels + config.use_bias * (2 * channels + hidden)
    per_block += channels * (config.short_convolution + config.use_conv_bias)
    per_block += channels * (rank + 2 * state) + channels * (rank + 1) + channels * (state + 1) + hidden
    groups = count_parameters(MAMBA.plugin, MAMBA.build(config))
    check_parameters(groups, config, per_block)


def test_settings_that_leave_no_channel_are_refused():
    with pytest.raises(RequestError, match="extra_channels must leave at least one channel: more than -128"):
        with_settings(MambaPlugin.presets["tiny"], {"extra_channels": "-128"}, "model mamba")
