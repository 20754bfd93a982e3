"""Optimizers, set up by the kind of a parameter and never by the name of an architecture."""

import torch
from torch import nn

from seqbench.training.matrices import Declared, split_parameters
from seqbench.training.muon import Muon
from seqbench.training.settings import TrainerSettings


def build_optimizers(
    model: nn.Module, settings: TrainerSettings, declared: Declared = lambda name: None
) -> list[torch.optim.Optimizer]:
    """One AdamW, or Muon for the matrices and AdamW for the rest; `seqbench.training.matrices` says which are matrices.

    Weight decay falls on matrices only: not on embeddings, tied heads, biases, norms, or tables of a model's own such
    as state matrices and anchors. `declared` is what the plugin says of a parameter.
    """
    matrices, others = split_parameters(model, declared)
    rest = [parameter for _, parameter in others]
    if settings.optimizer == "muon" and matrices:
        muon = Muon(matrices, lr=settings.learning_rate, weight_decay=settings.weight_decay, momentum=settings.momentum)
        return [muon, _adamw([{"params": rest, "weight_decay": 0.0}], settings)] if rest else [muon]
    groups = [
        {"params": [matrix.parameter for matrix in matrices], "weight_decay": settings.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return [_adamw([group for group in groups if group["params"]], settings)]


def _adamw(groups: list[dict[str, object]], settings: TrainerSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        groups,
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        # The fused kernel is one pass over memory on CPU and GPU.
        fused=True,
    )
