"""Models that break the contract, each a small variation of `right_model.Right`.

`WRONG` says which clauses each of them fails, no more and no fewer. A model class `SomethingModel` makes a plugin
`Something`: `bench check wrong_models:Something`.
"""

import dataclasses
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from right_model import Right, RightModel, RightSettings
from torch import nn

from seqbench.contracts import Ablation, Flops, Measurement, WidthAxis

WRONG: dict[type, set[str]] = {}

# Everything that compares one forward pass with another.
_COMPARISONS = ("causal", "rows-independent", "chunked", "padding", "padding-state")


def plugin_fails(*clauses):
    """Registers a wrong plugin."""

    def register(plugin):
        WRONG[plugin] = set(clauses)
        return plugin

    return register


def model_fails(*clauses):
    """Registers a plugin of the decorated model."""

    def register(model):
        name = model.__name__.removesuffix("Model")
        plugin = type(name, (Right,), {"model_class": model, "__module__": __name__, "__doc__": model.__doc__})
        globals()[name] = plugin_fails(*clauses)(plugin)
        return model

    return register


# The future. What depends on tokens that are yet to come differs wherever a sequence is cut.


@model_fails("causal", "chunked", "padding", "padding-state")
class SequenceNormModel(RightModel):
    """Divides by the deviation over the whole sequence."""

    def run(self, hidden, chunk, after):
        hidden = super().run(hidden, chunk, after)
        return hidden / hidden.std(dim=1, keepdim=True, correction=0).clamp(min=1e-3)


@model_fails("causal", "padding")
class FaintSequenceMeanModel(RightModel):
    """Subtracts so little of the mean over the sequence, in fp32 at that, that nobody sees it."""

    def run(self, hidden, chunk, after):
        hidden = super().run(hidden, chunk, after)
        widened = hidden.float()
        return (widened - 1e-9 * widened.mean(dim=1, keepdim=True)).to(hidden.dtype)


@model_fails("causal", "chunked", "padding", "padding-state")
class MaximumOverTimeModel(RightModel):
    """Adds the maximum of each channel over the sequence."""

    def run(self, hidden, chunk, after):
        hidden = super().run(hidden, chunk, after)
        return hidden + 0.1 * hidden.amax(dim=1, keepdim=True)


class SecondPassModel(RightModel):
    def recur(self, layer, inputs, chunk, after, index):
        inputs = inputs + super().recur(layer, inputs, chunk, after, index)
        before = dataclasses.replace(chunk.before, hidden=[after.hidden.pop()])
        return super().recur(layer, inputs, dataclasses.replace(chunk, before=before), after, index)


@plugin_fails("causal", "chunked", "padding-state")
class SecondPass(Right):
    """Shares a block across depth, whose second pass starts from the final state of the first."""

    model_class = SecondPassModel

    def flops(self, config, sequence_length):
        again = 2 * 3 * config.layers * config.recurrent * config.width**2 * sequence_length
        return Flops({**super().flops(config, sequence_length).forward, "second pass": again})


@model_fails("causal", "chunked", "padding-state")
class AcrossBlocksModel(RightModel):
    """The last token of each block of 16 sees the first one of the next block."""

    def run(self, hidden, chunk, after):
        hidden = super().run(hidden, chunk, after)
        last = torch.arange(hidden.shape[1]) % 16 == 15
        return hidden + 0.1 * F.pad(hidden, (0, 0, 0, 1))[:, 1:] * last.unsqueeze(-1)


@model_fails("causal", "chunked")
class LongOnlyModel(RightModel):
    """Looks ahead in sequences of more than 400 tokens."""

    def run(self, hidden, chunk, after):
        hidden = super().run(hidden, chunk, after)
        return hidden + 0.1 * hidden.mean(dim=1, keepdim=True) if hidden.shape[1] > 400 else hidden


@model_fails("causal", "padding")
class TrainingOnlyModel(RightModel):
    """Centres over the sequence in training mode."""

    def run(self, hidden, chunk, after):
        hidden = super().run(hidden, chunk, after)
        return hidden - hidden.mean(dim=1, keepdim=True) if self.training else hidden


@model_fails("causal", "chunked", "padding", "padding-state")
class KnowsLengthModel(RightModel):
    """Scales by the number of tokens that there are."""

    def run(self, hidden, chunk, after):
        return super().run(hidden, chunk, after) * hidden.shape[1] ** 0.1


@model_fails("causal", "chunked", "padding-state")
class BlindModel(RightModel):
    """Sees the tokens before the present one alone: shifted by one too many."""

    def embed(self, input_ids, positions):
        before = super().embed(input_ids, positions)
        return F.pad(before, (0, 0, 1, 0))[:, :-1]


# The other rows.


@model_fails("rows-independent", "padding", "padding-state")
class BatchMeanModel(RightModel):
    """Centres over the rows of the batch, at every position for itself."""

    def run(self, hidden, chunk, after):
        hidden = super().run(hidden, chunk, after)
        return hidden - 0.1 * hidden.mean(dim=0, keepdim=True)


@model_fails("rows-independent", "causal", "padding")
class BatchNormModel(RightModel):
    """Batch normalisation: over rows and positions in training mode, with running statistics in evaluation mode."""

    def extend(self, config):
        self.batch_norm = nn.BatchNorm1d(config.width)

    def run(self, hidden, chunk, after):
        return self.batch_norm(super().run(hidden, chunk, after).transpose(1, 2)).transpose(1, 2)


# The state.


@model_fails("chunked", "padding-state")
class ForgetsPositionModel(RightModel):
    """Counts positions from zero in every chunk."""

    def embed(self, input_ids, positions):
        return super().embed(input_ids, positions - positions[:, :1])


@model_fails("chunked")
class SharesStateModel(RightModel):
    """Goes on from the newest state, whosever was passed."""

    newest_state = None

    def forward(self, input_ids, attention_mask=None, past_key_values=None, use_cache=False, **_):
        if past_key_values is not None:
            past_key_values = self.newest_state
        output = super().forward(input_ids, attention_mask, past_key_values, use_cache)
        self.newest_state = output.past_key_values
        return output


@model_fails("chunked", "deterministic", "causal", "padding", "padding-state", "rows-independent")
class RemembersCallsModel(RightModel):
    """Starts every sequence of a batch size from where the last one of that size ended."""

    def empty_state(self, batch):
        state = super().empty_state(batch)
        if getattr(self, "last", None) is not None and self.last.shape[0] == batch:
            state.hidden = [self.last]
        return state

    def close(self, after, chunk):
        super().close(after, chunk)
        self.last = after.hidden[0] if after.hidden else None


@plugin_fails("state-bytes")
class MiscountsState(Right):
    """Leaves out which places of the window are tokens, and the number of tokens."""

    def state_bytes(self, config, sequence_length):
        return 4 * config.layers * config.width * (1 + 2 * (config.window - 1))


@plugin_fails("state-bytes")
class MiscountsLongState(Right):
    """Right up to 50 tokens."""

    def state_bytes(self, config, sequence_length):
        return super().state_bytes(config, sequence_length) + max(0, sequence_length - 50)


@model_fails("state-bytes")
class GrowingStateModel(RightModel):
    """Keeps every token in the state."""

    def forward(self, input_ids, attention_mask=None, past_key_values=None, use_cache=False, **_):
        output = super().forward(input_ids, attention_mask, past_key_values, use_cache)
        if use_cache:
            tokens = getattr(past_key_values, "tokens", None)
            output.past_key_values.tokens = input_ids if tokens is None else torch.cat((tokens, input_ids), dim=1)
        return output


@model_fails("state-bytes")
class KeepsViewsModel(RightModel):
    """Keeps slices of keys and values, and with them everything that they are cut from."""

    def newest(self, extended, chunk):
        if bool(chunk.real.all()):
            return extended[:, chunk.real.shape[1] :]
        return super().newest(extended, chunk)


@model_fails("state-detached")
class AttachedStateModel(RightModel):
    """Leaves the recurrence in the graph."""

    def recur(self, layer, inputs, chunk, after, index):
        kept = torch.sigmoid(layer.gate(inputs) + 1)
        states, state = self.scan(kept, (1 - kept) * layer.value(inputs), chunk.before.hidden[index], chunk)
        after.hidden.append(state)
        return layer.read(states)


# Padding.


@model_fails("padding-state")
class PaddingWritesModel(RightModel):
    """Padding behind the tokens of a row goes into the recurrence."""

    def scan(self, kept, new, state, chunk):
        return super().scan(kept, new, state, dataclasses.replace(chunk, real=torch.ones_like(chunk.real)))


@model_fails("padding-state")
class PaddingCountsInStateModel(RightModel):
    """Counts padding as tokens seen."""

    def close(self, after, chunk):
        super().close(after, chunk)
        after.seen = chunk.before.seen + chunk.real.shape[1]


@model_fails("padding", "padding-state")
class PositionsOfColumnsModel(RightModel):
    """Numbers the columns of a batch rather than the tokens of a row."""

    def forward(self, input_ids, attention_mask=None, past_key_values=None, use_cache=False, **_):
        self.columns = None
        if attention_mask is not None and past_key_values is None:
            self.columns = (attention_mask == 0).to(torch.int8).argsort(dim=1, stable=True)
        return super().forward(input_ids, attention_mask, past_key_values, use_cache)

    def embed(self, input_ids, positions):
        return super().embed(input_ids, positions if self.columns is None else self.columns)


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
    def head(self, hidden):
        return super().head(F.dropout(hidden, 0.1))


@model_fails("deterministic")
class ChangesInputModel(RightModel):
    def forward(self, input_ids, attention_mask=None, past_key_values=None, use_cache=False, **_):
        output = super().forward(input_ids.clone(), attention_mask, past_key_values, use_cache)
        input_ids[:, -1] = 0
        return output


@model_fails("deterministic")
class CountsCallsModel(RightModel):
    """Updates a statistic in evaluation mode."""

    def extend(self, config):
        self.register_buffer("calls", torch.zeros(()))

    def head(self, hidden):
        self.calls += 1
        return super().head(hidden)


@model_fails("save-load", "init")
class SecretTieModel(RightModel):
    """Shares weights between two maps, and does not tell transformers."""

    def extend(self, config):
        self.layers[0].output.weight = self.layers[0].read.weight


@model_fails("save-load", "init")
class UnsavedBufferModel(RightModel):
    """Random features that are not saved."""

    def extend(self, config):
        self.register_buffer("features", torch.randn(config.width), persistent=False)

    def head(self, hidden):
        return super().head(hidden * (1 + 0.1 * self.features))


@plugin_fails("save-load", "init")
class SettingOutsideConfig(Right):
    """A setting that the saved config does not have."""

    def build(self, config):
        built = super().build(config)
        built.embedding.register_forward_hook(lambda module, inputs, output: 2 * output)
        return built


# What a plugin says of itself.


@plugin_fails("vocabulary", "parameters", "ablations")
class RoundsVocabulary(Right):
    """As many ids as the next multiple of 8."""

    def with_vocabulary(self, config, vocab_size):
        return dataclasses.replace(config, vocab_size=-(-vocab_size // 8) * 8)


@plugin_fails("settings")
class HasNoSummary(Right):
    summary = ""


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
