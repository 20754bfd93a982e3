"""Models whose predictions depend on what they must not: the future, other rows, a state, padding.

Each is a small variation of `right_model.Right`.
"""

import dataclasses

import torch
import torch.nn.functional as F
from right_model import Right, RightModel
from torch import nn
from wrong_plugins import model_fails, plugin_fails

from seqbench.contracts import Flops

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

    def run_backbone(self, input_ids, attention_mask, past_key_values, use_cache):
        if past_key_values is not None:
            past_key_values = self.newest_state
        output = super().run_backbone(input_ids, attention_mask, past_key_values, use_cache)
        self.newest_state = output.past_key_values
        return output


@model_fails("chunked", "deterministic", "causal", "padding", "padding-state", "rows-independent")
class RemembersCallsModel(RightModel):
    """Starts every sequence of a batch size from where the last one of that size ended."""

    def zero_state(self, batch):
        state = super().zero_state(batch)
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

    def run_backbone(self, input_ids, attention_mask, past_key_values, use_cache):
        output = super().run_backbone(input_ids, attention_mask, past_key_values, use_cache)
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

    def run_backbone(self, input_ids, attention_mask, past_key_values, use_cache):
        self.columns = None
        if attention_mask is not None and past_key_values is None:
            self.columns = (attention_mask == 0).to(torch.int8).argsort(dim=1, stable=True)
        return super().run_backbone(input_ids, attention_mask, past_key_values, use_cache)

    def embed(self, input_ids, positions):
        return super().embed(input_ids, positions if self.columns is None else self.columns)
