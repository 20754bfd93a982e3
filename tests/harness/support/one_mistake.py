"""Models with one mistake each, as beginners make them: `one_mistake:ReturnsTuple` and the others.

Each is a small variation of `right_model.Right`.
"""

import dataclasses

import torch
from right_model import Right, RightModel
from torch import nn


def plugin_of(model):
    """The plugin of a model, named as the model without "Model"."""
    name = model.__name__.removesuffix("Model")
    globals()[name] = type(name, (Right,), {"model_class": model, "__module__": __name__})
    return model


@plugin_of
class ReturnsTupleModel(RightModel):
    def forward(self, input_ids, attention_mask=None, **_):
        output = super().forward(input_ids, attention_mask)
        return (output.logits,)


class RaisesInBuild(Right):
    def build(self, config):
        raise ValueError("width 16 does not divide by 5 heads")


@plugin_of
class WrongShapeModel(RightModel):
    def forward(self, *arguments, **options):
        output = super().forward(*arguments, **options)
        output.logits = output.logits.transpose(1, 2)
        return output


@plugin_of
class NotANumberModel(RightModel):
    def finish(self, hidden):
        return hidden / torch.zeros(())


@plugin_of
class RaisesInForwardModel(RightModel):
    def finish(self, hidden):
        return hidden @ torch.ones(3, 3)


@plugin_of
class ForgetsStateModel(RightModel):
    def zero_state(self, batch):
        return super().zero_state(batch)

    def run_backbone(self, input_ids, attention_mask, past_key_values, use_cache):
        return super().run_backbone(input_ids, attention_mask, None, use_cache)


@plugin_of
class LooksAheadModel(RightModel):
    def run(self, hidden, chunk, after):
        hidden = super().run(hidden, chunk, after)
        return hidden + hidden.flip(1)


@plugin_of
class MixesRowsModel(RightModel):
    def run(self, hidden, chunk, after):
        hidden = super().run(hidden, chunk, after)
        return hidden - 0.1 * hidden.mean(dim=0, keepdim=True)


@plugin_of
class CountsUnlabelledModel(RightModel):
    def forward(self, input_ids, attention_mask=None, labels=None, **options):
        output = super().forward(input_ids, attention_mask, **options)
        if labels is not None:
            scores, shifted = output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
            output.loss = nn.functional.cross_entropy(scores, shifted, reduction="sum") / shifted.numel()
        return output


@plugin_of
class PrintsModel(RightModel):
    def finish(self, hidden):
        print("hidden", tuple(hidden.shape))
        return hidden


@plugin_of
class FailsOnEmptyRowsModel(RightModel):
    def run_backbone(self, input_ids, attention_mask, past_key_values, use_cache):
        if attention_mask is not None and (attention_mask.sum(dim=1) == 0).any():
            raise IndexError("index -1 is out of bounds: there is no last token")
        return super().run_backbone(input_ids, attention_mask, past_key_values, use_cache)


@plugin_of
class DropsInEvaluationModel(RightModel):
    def finish(self, hidden):
        return nn.functional.dropout(hidden, 0.1)


class RaisesInFlops(Right):
    def flops(self, config, sequence_length):
        raise KeyError("hidden_size")


class MiscountsState(Right):
    def state_bytes(self, config, sequence_length):
        return 2 * super().state_bytes(config, sequence_length)


class ForgetsVocabulary(Right):
    def with_vocabulary(self, config, vocab_size):
        return dataclasses.replace(config)
