"""Toy models that tell of their inside, rightly and wrongly: `toy_diagnostics:Telling` and the others."""

import random
from typing import ClassVar

import numpy as np
import torch
from toy_model import Neighbour, NeighbourSettings

from seqbench.contracts import Measurement


def told(metric, value, **coordinates):
    return Measurement(metric, value, "fraction", 4, "training", coordinates)


class Telling(Neighbour):
    """Whether its hidden units are heard, how much each is used, and a score over distance, from one forward pass."""

    # Dropout makes the bits depend on the random generator.
    presets: ClassVar = {"tiny": NeighbourSettings(dropout=0.5, width=12)}

    def diagnose(self, model, batch):
        logits = model(batch.input_ids, attention_mask=batch.attention_mask).logits.detach()
        usage = model.inner.weight.detach().abs().mean(-1).tolist()
        yield told("certainty", float(logits.softmax(-1).amax(-1).mean()))
        for unit, value in enumerate(usage):
            yield told("usage", value, half=unit // 6, unit=unit)
        for distance in range(4):
            yield told("decay", 2.0**-distance, distance=distance, half=0)


class Silent(Telling):
    """Has nothing to tell."""

    diagnose = Neighbour.diagnose


class Disturbing(Telling):
    """Draws random numbers, leaves gradients behind and sets flags."""

    def diagnose(self, model, batch):
        torch.rand(3), random.random(), np.random.rand()
        model.train()
        model.dropout.eval()
        model(batch.input_ids).logits.sum().backward()
        model.norm.weight.grad.fill_(float("nan"))
        return [told("certainty", float("nan"))]


class Raising(Disturbing):
    """Does all that and raises."""

    def diagnose(self, model, batch):
        super().diagnose(model, batch)
        raise ArithmeticError("no such\nhead")


class Rambling(Telling):
    """Returns what cannot be stored."""

    answer = "everything is fine"

    def diagnose(self, model, batch):
        return self.answer
