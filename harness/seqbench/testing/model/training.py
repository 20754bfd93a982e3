"""Clauses on training: a step of every optimizer that the trainer has, and an auxiliary loss of each row by itself."""

import dataclasses

import torch
from torch import Tensor

from seqbench.testing.model.subject import VOCABULARY, ModelSubject
from seqbench.testing.report import ClauseFailure, few
from seqbench.testing.tensors import largest_difference, next_token_loss, pad_rows, random_tokens, same_bits
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


def auxiliary_loss(subject: ModelSubject) -> None:
    """An auxiliary loss, where a model has one, is a finite number for each row that neither other rows nor padding
    change: however a batch is cut into parts, the same is trained.
    """
    model = subject.probe().model
    rows = [*random_tokens(3, 24, VOCABULARY).unbind(), random_tokens(1, 9, VOCABULARY)[0]]
    tokens, mask = pad_rows(rows, [0, 0, 0, 15], 24)
    with torch.no_grad():
        together = getattr(model(tokens, attention_mask=mask), "auxiliary_loss", None)
        if together is None:
            return
        if together.shape != (len(rows),) or not together.isfinite().all():
            raise ClauseFailure(f"auxiliary_loss of {len(rows)} rows is {together}; it is one finite number for each")
        alone = torch.cat([model(row.unsqueeze(0)).auxiliary_loss for row in rows])
    # Rounding of a mean over a row's tokens in another order.
    if largest_difference(together, alone) > 1e-4 * max(1.0, alone.abs().max().item()):
        raise ClauseFailure(
            f"auxiliary losses of rows in one batch are {few([f'{value:.4g}' for value in together.tolist()])}, of the"
            f" same rows alone {few([f'{value:.4g}' for value in alone.tolist()])}",
            "usual causes: a mean over the batch in place of one over each row's real tokens; padding that counts",
        )


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
