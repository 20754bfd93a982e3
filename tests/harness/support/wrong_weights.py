"""Models whose weights are drawn, trained or saved in a way that breaks the contract.

Each is a small variation of `right_model.Right`.
"""

import numpy as np
import torch
import torch.nn.functional as F
from right_model import Right, RightModel
from torch import nn
from wrong_plugins import model_fails, plugin_fails

# Everything that compares one forward pass with another.
_COMPARISONS = ("causal", "rows-independent", "chunked", "padding", "padding-state")

# Weights.


@model_fails("finite-gradients")
class UnusedParameterModel(RightModel):
    def extend(self, config):
        self.unused = nn.Linear(config.width, config.width)


@model_fails("finite-gradients")
class DeadParameterModel(RightModel):
    """A branch that cannot learn."""

    def extend(self, config):
        self.branch = nn.Parameter(torch.ones(config.width))

    def run(self, hidden, chunk, after):
        hidden = super().run(hidden, chunk, after)
        return hidden + 0 * self.branch * hidden


@model_fails("finite-gradients", "padding")
class RootOfZeroModel(RightModel):
    """The distance to the token before, whose gradient is not a number where that is the same token."""

    def embed(self, input_ids, positions):
        embedded = super().embed(input_ids, positions)
        if not self.training:
            return embedded
        tokens = self.embedding(input_ids)
        distance = (tokens[:, 1:] - tokens[:, :-1]).norm(dim=-1, keepdim=True)
        distance = distance.square().sum(dim=-1, keepdim=True).sqrt()
        return embedded + 0.01 * F.pad(distance, (0, 0, 1, 0))


@plugin_fails("seeded-initialisation")
class SetsItsOwnSeed(Right):
    def build(self, config):
        torch.manual_seed(0)
        return super().build(config)


@plugin_fails("seeded-initialisation", "deterministic")
class DrawsFromNumPy(Right):
    def build(self, config):
        built = super().build(config)
        built.norm.weight.data.mul_(torch.from_numpy(np.random.uniform(0.9, 1.1, config.width)).float())
        return built


class UnsetParameterModel(RightModel):
    """A parameter that nobody initialises."""

    def extend(self, config):
        self.scale = nn.Parameter(torch.empty(config.width))

    def run(self, hidden, chunk, after):
        return super().run(hidden, chunk, after) * (1 + self.scale.tanh() / 2)


class UnsetParameter(Right):
    """Not among WRONG: what else it fails depends on what happens to be in memory."""

    model_class = UnsetParameterModel


@model_fails("deterministic", *_COMPARISONS, "save-load", "init")
class DropsInEvaluationModel(RightModel):
    def finish(self, hidden):
        return F.dropout(hidden, 0.1)


@model_fails("deterministic")
class ChangesInputModel(RightModel):
    def run_backbone(self, input_ids, attention_mask, past_key_values, use_cache):
        output = super().run_backbone(input_ids.clone(), attention_mask, past_key_values, use_cache)
        input_ids[:, -1] = 0
        return output


@model_fails("deterministic")
class CountsCallsModel(RightModel):
    """Updates a statistic in evaluation mode."""

    def extend(self, config):
        self.register_buffer("calls", torch.zeros(()))

    def finish(self, hidden):
        self.calls += 1
        return hidden


# Saving raises the same for the clause "init", which is not counted again.
@model_fails("save-load")
class SecretTieModel(RightModel):
    """Shares weights between two maps, and does not tell transformers."""

    def extend(self, config):
        self.layers[0].output.weight = self.layers[0].read.weight


@model_fails("save-load", "init")
class UnsavedBufferModel(RightModel):
    """Random features that are not saved."""

    def extend(self, config):
        self.register_buffer("features", torch.randn(config.width), persistent=False)

    def finish(self, hidden):
        return hidden * (1 + 0.1 * self.features)


@plugin_fails("save-load", "init")
class SettingOutsideConfig(Right):
    """A setting that the saved config does not have."""

    def build(self, config):
        built = super().build(config)
        built.embedding.register_forward_hook(lambda module, inputs, output: 2 * output)
        return built
