"""A clause on training: a step of every optimizer that the trainer has."""

import dataclasses

import torch
from torch import Tensor

from seqbench.testing.model.subject import VOCABULARY, ModelSubject
from seqbench.testing.report import ClauseFailure, few
from seqbench.testing.tensors import next_token_loss, random_tokens, same_bits
from seqbench.training.optimizer import build_optimizers
from seqbench.training.settings import TrainerSettings

_OPTIMIZERS: tuple[str, ...] = next(
    field.metadata["choices"] for field in dataclasses.fields(TrainerSettings) if field.name == "optimizer"
)


def training_step(subject: ModelSubject) -> None:
    """A training step with each optimizer moves every parameter that has a gradient, and leaves all of them finite.

    So does the step after it, and the loss is finite behind both.
    """
    tokens = random_tokens(2, 24, VOCABULARY)
    for optimizer in _OPTIMIZERS:
        _require_steps(subject, optimizer, tokens)


def _require_steps(subject: ModelSubject, optimizer: str, tokens: Tensor) -> None:
    model = subject.probe().model.train()
    optimizers = build_optimizers(model, TrainerSettings(optimizer=optimizer))
    for step in ("one step", "a second step"):
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        next_token_loss(model, tokens).backward()
        after = dict(model.named_parameters())
        # Without a gradient there is nothing to move for, which another clause tells.
        pulled = [name for name, parameter in after.items() if parameter.grad is not None and parameter.grad.any()]
        for each in optimizers:
            each.step()
            each.zero_grad()
        # Another call first: it may undo the step.
        with torch.no_grad():
            loss = next_token_loss(model, tokens)
        broken = [name for name, parameter in after.items() if not parameter.isfinite().all()]
        if broken:
            raise ClauseFailure(f"after {step} of {optimizer}, {few(broken)} of {len(after)} parameters are not finite")
        still = [name for name in pulled if same_bits(before[name], after[name])]
        if still:
            raise ClauseFailure(
                f"{step} of {optimizer} leaves {few(still)} of {len(after)} parameters as they are, which have a"
                " gradient",
                "usual causes: weights that are set anew at each call, or so large that a step is lost in rounding",
            )
        if not loss.isfinite():
            raise ClauseFailure(f"the loss is {loss.item()} after {step} of {optimizer}")
