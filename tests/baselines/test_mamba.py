"""What the plugin `mamba` has to itself: its convolution, its parameters and its settings."""

import pytest
import torch
import torch.nn.functional as F
from state_space_models import MAMBA, check_parameters

from seqbench.accounting.counting import count_parameters
from seqbench.contracts import with_settings
from seqbench.errors import RequestError
from seqbench_baselines.mamba.convolution import causal_convolution
from seqbench_baselines.mamba.plugin import MambaSettings


@pytest.mark.parametrize("config", [*MAMBA.variants, MambaSettings()])
def test_parameters_follow_the_closed_form_and_groups_sum_to_the_total(config):
    hidden, channels, rank, state = config.hidden_size, config.channels, config.rank, config.state_size
    per_block = 3 * hidden * channels + config.use_bias * (2 * channels + hidden)
    per_block += channels * (config.conv_kernel + config.use_conv_bias)
    per_block += channels * (rank + 2 * state) + channels * (rank + 1) + channels * (state + 1) + hidden
    groups = count_parameters(MAMBA.plugin, MAMBA.build(config))
    check_parameters(groups, config, per_block)


def test_the_convolution_is_torchs_grouped_convolution():
    inputs, history = torch.randn(2, 9, 6, dtype=torch.float64), torch.randn(2, 3, 6, dtype=torch.float64)
    weight, bias = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    leaves = [tensor.requires_grad_() for tensor in (inputs, history, weight, bias)]
    expected = F.conv1d(torch.cat((history, inputs), dim=1).transpose(1, 2), weight.unsqueeze(1), bias, groups=6)
    torch.testing.assert_close(causal_convolution(*leaves), expected.transpose(1, 2))
    assert torch.autograd.gradcheck(causal_convolution, leaves)


def test_settings_that_leave_no_channel_are_refused():
    with pytest.raises(RequestError, match="extra_channels must leave at least one channel: more than -128"):
        with_settings(MambaSettings(), {"extra_channels": "-128"}, "model mamba")
