"""Toy plugins that train and then cannot be evaluated, stored or shown: `unready:NoPrimaryMetric` and the others."""

import dataclasses
from typing import ClassVar

import torch
from torch import nn
from toy_model import Neighbour, NeighbourConfig, NeighbourModel
from toy_task import Recall

from seqbench.contracts import Evaluation, TaskPreset
from seqbench.errors import RequestError


class Watched(Recall):
    """Counts the batches beyond the first, which are for training alone."""

    trained: ClassVar = []

    def training_batch(self, seed, index, batch_size):
        if index > 0:
            self.trained.append(index)
        return super().training_batch(seed, index, batch_size)


def _task(change):
    class Changed(Watched):
        def evaluate(self, predictor, split):
            return change(super().evaluate(predictor, split), split)

    return Changed


def _no_primary(evaluation, split):
    return Evaluation(tuple(dataclasses.replace(one, metric="other") for one in evaluation.measurements))


def _not_finite(evaluation, split):
    return Evaluation(tuple(dataclasses.replace(one, value=float("nan")) for one in evaluation.measurements))


def _empty_validation(evaluation, split):
    if split == "validation":
        raise RequestError("there are no strings for validation; raise validation_strings")
    return evaluation


NoPrimaryMetric = _task(_no_primary)
NotFinite = _task(_not_finite)
Repeating = _task(lambda evaluation, split: Evaluation(2 * evaluation.measurements, evaluation.items))
NotJson = _task(lambda evaluation, split: Evaluation(evaluation.measurements, ({"index": 0, "seen": torch.ones(1)},)))
MixedPlaces = _task(
    lambda evaluation, split: Evaluation(
        (
            *evaluation.measurements,
            dataclasses.replace(evaluation.measurements[0], coordinates={"lookback": "far"}),
        )
    )
)
Nothing = _task(lambda evaluation, split: None)
EmptyValidation = _task(_empty_validation)


class LongTest(Watched):
    """Tests twice as long sequences as it trains on."""

    presets: ClassVar = {name: TaskPreset(each.config, "", each.trainer) for name, each in Recall.presets.items()}

    def evaluate(self, predictor, split):
        predictor.logits(torch.zeros(2, 2 * self.config.length, dtype=torch.int64))
        return super().evaluate(predictor, split)


class Forgetting(Neighbour):
    """Does not save one of its weights as it is."""

    def equip(self, model):
        save = model.save_pretrained

        def forget(folder):
            weight = model.inner.weight.detach().clone()
            with torch.no_grad():
                model.inner.weight.zero_()
            save(folder)
            with torch.no_grad():
                model.inner.weight.copy_(weight)

        model.save_pretrained = forget
        return model


class NotSaved(Neighbour):
    """Its model is no PreTrainedModel."""

    def build(self, config):
        class Bare(nn.Module):
            def __init__(self):
                super().__init__()
                self.inside = NeighbourModel(NeighbourConfig(vocab_size=config.vocab_size))

            def forward(self, input_ids, **options):
                return self.inside(input_ids, **options)

        return Bare()


class Placed(Neighbour):
    """Has a table of positions for training sequences alone."""

    def equip(self, model):
        model.positions = nn.Embedding(6, model.config.width)

        def add(module, inputs, output):
            return output + model.positions(torch.arange(output.shape[1]))

        model.embedding.register_forward_hook(add)
        return model

    exemptions: ClassVar = {"chunked": "positions begin again", "padding": "positions count padding"}
