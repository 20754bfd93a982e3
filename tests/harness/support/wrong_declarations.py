"""Plugins that declare what their models do not keep: counts, bounds, presets, ablations.

Each is a small variation of `right_model.Right`.
"""

import dataclasses
from typing import ClassVar

import torch
from right_model import Right, RightModel, RightSettings
from wrong_plugins import plugin_fails

from seqbench.contracts import Ablation, Flops, Measurement, WidthAxis

# Parameters and FLOPs.


@plugin_fails("parameters")
class CountsNormAsEmbedding(Right):
    """Counts the last norm as part of the vocabulary."""

    def parameter_group(self, parameter_name):
        return "embedding" if parameter_name.startswith("norm") else super().parameter_group(parameter_name)


@plugin_fails("flops")
class ForgetsHeadFlops(Right):
    def flops(self, config, sequence_length):
        return Flops({"layers": super().flops(config, sequence_length).forward["layers"]})


@plugin_fails("flops")
class CountsEveryPair(Right):
    """Counts attention as the rectangle that it is computed in, and does not say so."""

    def flops(self, config, sequence_length):
        flops = dict(super().flops(config, sequence_length).forward)
        hidden_pairs = sequence_length * (sequence_length + config.window - 1) - (
            sequence_length * config.window - config.window * (config.window - 1) // 2
        )
        return Flops({**flops, "hidden pairs": 4 * config.layers * hidden_pairs * config.width})


@plugin_fails("flops")
class CountsAtOneLength(Right):
    """Right at 192 tokens."""

    def flops(self, config, sequence_length):
        at_192 = super().flops(config, 192).forward
        return Flops({name: count * sequence_length // 192 for name, count in at_192.items()})


# Receptive field.


class WindowModel(RightModel):
    """Attention alone."""

    def make_layer(self, config):
        layer = super().make_layer(config)
        del layer.gate, layer.value, layer.read, layer.norm
        return layer


@plugin_fails("receptive-field")
class SaysBounded(Right):
    """Denies its recurrence."""

    def receptive_field(self, config):
        return self.attention_reach(config) + 1


@plugin_fails("receptive-field")
class SaysUnbounded(Right):
    """Without a recurrence, and says nothing of it."""

    presets: ClassVar = {"tiny": RightSettings(recurrent=False)}
    ablations: ClassVar = {}
    model_class = WindowModel

    def receptive_field(self, config):
        return None


@plugin_fails("receptive-field")
class SaysOneTooMany(SaysUnbounded):
    """Counts the predicted token too."""

    def receptive_field(self, config):
        return self.attention_reach(config) + 2


@plugin_fails("receptive-field")
class ReachesBeyondItsField(SaysUnbounded):
    def attention_reach(self, config):
        return 100

    def receptive_field(self, config):
        return config.layers * (config.window - 1) + 1


# What a plugin says of itself.


@plugin_fails("vocabulary", "parameters", "ablations")
class RoundsVocabulary(Right):
    """As many ids as the next multiple of 8."""

    def with_vocabulary(self, config, vocab_size):
        return dataclasses.replace(config, vocab_size=-(-vocab_size // 8) * 8)


@plugin_fails("settings")
class HasNoSummary(Right):
    summary = ""


@plugin_fails("settings")
class ClassifiedInWords(Right):
    classification = "a matrix"


@plugin_fails("presets")
class ImpossiblePreset(Right):
    presets: ClassVar = {"tiny": RightSettings(), "odd": RightSettings(width=17)}

    def build(self, config):
        assert config.width % 2 == 0
        return super().build(config)


@plugin_fails("presets", "width", "init")
class NeedsValues(Right):
    """Computes a number from a tensor while it is built."""

    def build(self, config):
        assert torch.ones(3).sum().item() == 3
        return super().build(config)


@plugin_fails("width")
class IgnoresWidth(Right):
    width_axis = WidthAxis("window", 1)


@plugin_fails("width")
class MisspelsFineAxis(Right):
    fine_axis = WidthAxis("widht", 1)


@plugin_fails("ablations")
class AblatesNothing(Right):
    ablations: ClassVar = {"no-memory": Ablation("without memory", {"use_memory": False})}


@plugin_fails("ablations")
class AblatesParameters(Right):
    """An ablation for trained models that needs weights which they do not have."""

    ablations: ClassVar = {"two-layers": Ablation("another layer", {"layers": 2}, at_evaluation=True)}


@plugin_fails("diagnose")
class DiagnosesAtRandom(Right):
    def diagnose(self, model, batch):
        return [Measurement("luck", float(torch.rand(())), "fraction", 1, "training")]


@plugin_fails("diagnose")
class DiagnosesAndForgets(Right):
    def diagnose(self, model, batch):
        model.zero_grad()
        return []


@plugin_fails("exemptions")
class ExemptFromNothing(Right):
    exemptions: ClassVar = {"causality": "it looks ahead"}
