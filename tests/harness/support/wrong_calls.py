"""Models that take an argument for nothing, whose `generate` goes wrong, or that an optimizer cannot train.

Each is a small variation of `right_model.Right`.
"""

import dataclasses

import torch
import torch.nn.functional as F
from right_model import RightModel, State
from wrong_plugins import model_fails

from seqbench.nn import STATE_NAME, CausalOutput, transformers_call

# Arguments.


class OwnCallModel(RightModel):
    """A call of its own, which keeps every clause, for others to spoil."""

    @transformers_call
    def forward(
        self, input_ids, attention_mask=None, past_key_values=None, use_cache=False, labels=None, logits_to_keep=0
    ):
        return self.answer(input_ids, attention_mask, past_key_values, use_cache, labels, logits_to_keep)

    def answer(self, input_ids, attention_mask, past_key_values, use_cache, labels, logits_to_keep):
        output = self.run_backbone(input_ids, attention_mask, past_key_values, use_cache)
        return self.predict(output, labels, logits_to_keep)


@model_fails("arguments")
class SwallowsArgumentsModel(OwnCallModel):
    """Takes whatever it is given."""

    def forward(
        self, input_ids, attention_mask=None, past_key_values=None, use_cache=False, labels=None, logits_to_keep=0, **_
    ):
        # The state under its other name, so that nothing but the swallowing is wrong.
        state = past_key_values if past_key_values is not None else _.get("cache")
        return self.answer(input_ids, attention_mask, state, use_cache, labels, logits_to_keep)


@model_fails("arguments")
class RefusesWithoutNameModel(OwnCallModel):
    """Says that something is wrong, and not what."""

    def forward(self, *values, **named):
        try:
            return super().forward(*values, **named)
        except TypeError:
            raise ValueError("bad call") from None


@model_fails("arguments", *(["generate"] if STATE_NAME == "cache" else []))
class OldNameModel(OwnCallModel):
    """Knows the state as past_key_values alone, as transformers named it before 5.24."""

    def forward(
        self,
        input_ids,
        attention_mask=None,
        past_key_values=None,
        use_cache=False,
        labels=None,
        logits_to_keep=0,
        return_dict=True,
    ):
        return self.answer(input_ids, attention_mask, past_key_values, use_cache, labels, logits_to_keep)


@model_fails("arguments")
class FirstNameCountsModel(OwnCallModel):
    """Given two states, goes on from one and says nothing."""

    def forward(self, *values, cache=None, past_key_values=None, **named):
        return super().forward(*values, past_key_values=cache if past_key_values is None else past_key_values, **named)


# Labels.


@model_fails("labels")
class IgnoresLabelsModel(OwnCallModel):
    def predict(self, output, labels, logits_to_keep):
        return super().predict(output, None, logits_to_keep)


class OwnLossModel(OwnCallModel):
    def predict(self, output, labels, logits_to_keep):
        found = super().predict(output, None, logits_to_keep)
        if labels is not None:
            found = CausalOutput(**{**found, "loss": self.own_loss(found.logits, labels)})
        return found


@model_fails("labels")
class UnshiftedLabelsModel(OwnLossModel):
    """Predicts the token that it has just read."""

    def own_loss(self, logits, labels):
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


@model_fails("labels")
class DividesByAllTokensModel(OwnLossModel):
    """Counts tokens without a label as if they cost nothing."""

    def own_loss(self, logits, labels):
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none").mean()


@model_fails("labels")
class MeanOfRowsModel(OwnLossModel):
    """The mean over the rows of their means: rows of few labels count as much as others."""

    def own_loss(self, logits, labels):
        pairs = zip(logits[:, :-1], labels[:, 1:], strict=True)
        return torch.stack([F.cross_entropy(row, label) for row, label in pairs]).mean()


@model_fails("labels")
class DetachedLossModel(OwnLossModel):
    def own_loss(self, logits, labels):
        return self.loss_function(logits, labels, logits.shape[-1]).detach()


# Logits to keep.


@model_fails("logits-to-keep")
class KeepsAllLogitsModel(OwnCallModel):
    def predict(self, output, labels, logits_to_keep):
        return super().predict(output, labels, 0)


@model_fails("logits-to-keep")
class KeepsNumbersAloneModel(OwnCallModel):
    """Has never heard of positions."""

    def predict(self, output, labels, logits_to_keep):
        return super().predict(output, labels, int(logits_to_keep))


@model_fails("logits-to-keep", "generate")
class KeepsFirstLogitsModel(OwnCallModel):
    def predict(self, output, labels, logits_to_keep):
        found = super().predict(output, labels, 0)
        kept = found.logits[:, :logits_to_keep] if isinstance(logits_to_keep, int) and logits_to_keep else found.logits
        return CausalOutput(**{**found, "logits": kept})


@model_fails("logits-to-keep", "generate")
class CutsInputModel(OwnCallModel):
    """Spares the layers what the head does not need, and so the state too."""

    def answer(self, input_ids, attention_mask, past_key_values, use_cache, labels, logits_to_keep):
        if isinstance(logits_to_keep, int) and logits_to_keep and attention_mask is None:
            input_ids = input_ids[:, -logits_to_keep:]
        return super().answer(input_ids, attention_mask, past_key_values, use_cache, labels, logits_to_keep)


# Generation.


@model_fails("generate")
class CannotGenerateModel(RightModel):
    @classmethod
    def can_generate(cls):
        return False


@model_fails("generate")
class GenerateDiesModel(RightModel):
    def prepare_inputs_for_generation(self, *values, **named):
        raise KeyError("layer_types")


@model_fails("generate")
class GenerateForgetsModel(RightModel):
    """Each token is chosen by the one before it."""

    def prepare_inputs_for_generation(self, *values, **named):
        return {**super().prepare_inputs_for_generation(*values, **named), STATE_NAME: None}


@model_fails("generate")
class GenerateReadsPaddingModel(RightModel):
    """The mask is lost on the way."""

    def generate(self, *values, attention_mask=None, **named):
        return super().generate(*values, **named)


@dataclasses.dataclass
class HalfReorderedState(State):
    def reorder_cache(self, beam_index):
        hidden = self.hidden
        super().reorder_cache(beam_index)
        self.hidden = hidden


@model_fails("generate")
class BeamsMixStatesModel(RightModel):
    """The recurrence of a beam stays where it was when the beams change places."""

    def run_backbone(self, *values):
        output = super().run_backbone(*values)
        if isinstance(output.get(STATE_NAME), State):
            output[STATE_NAME] = HalfReorderedState(**vars(output[STATE_NAME]))
        return output

    def empty_state(self):
        return HalfReorderedState()


@model_fails("generate")
class WithoutStateDiesModel(RightModel):
    """`generate` with use_cache=False fails."""

    def generate(self, *values, use_cache=True, **named):
        if not use_cache:
            raise NotImplementedError("only with the state")
        return super().generate(*values, **named)


# Training.


@model_fails("training-step")
class SetsItsWeightsAnewModel(RightModel):
    """Undoes what the optimizer did."""

    kept = None

    def run_backbone(self, *values):
        weight = self.layers[0].output.weight
        if self.training:
            self.kept = weight.detach().clone() if self.kept is None else self.kept
            weight.data.copy_(self.kept)
        return super().run_backbone(*values)


@model_fails("training-step")
class OverflowsModel(RightModel):
    """A weight so large that a step does not change it."""

    def extend(self, config):
        self.scale = torch.nn.Parameter(torch.full((config.width,), 3e9))

    def finish(self, hidden):
        return hidden * (self.scale / 3e9)


@model_fails("auxiliary-loss")
class LossOverTheBatchModel(RightModel):
    """An auxiliary loss that is a mean over all rows: micro-batches would change it."""

    def run_backbone(self, input_ids, attention_mask, past_key_values, use_cache):
        output = super().run_backbone(input_ids, attention_mask, past_key_values, use_cache)
        output.auxiliary_loss = output.last_hidden_state.square().mean().expand(len(input_ids))
        return output
