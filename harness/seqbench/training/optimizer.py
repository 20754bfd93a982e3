"""Optimizers, set up by the kind of a parameter and never by the name of an architecture."""

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from seqbench.training.settings import TrainerSettings


def build_optimizers(model: nn.Module, settings: TrainerSettings) -> list[torch.optim.Optimizer]:
    """One AdamW, or Muon for the weights of linear maps and AdamW for the rest.

    Weight decay falls on the weights of linear maps only: not on embeddings, tied heads, biases, norms, or tables of a
    model's own such as state matrices and anchors.
    """
    matrices, rest = split_parameters(model)
    if settings.optimizer == "muon" and matrices:
        # match_rms_adamw scales an update to AdamW's typical size, so that one rate serves both optimizers
        # (Liu et al., arXiv 2502.16982, section 2.2).
        muon = torch.optim.Muon(
            matrices,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
            adjust_lr_fn="match_rms_adamw",
        )
        return [muon, _adamw([{"params": rest, "weight_decay": 0.0}], settings)] if rest else [muon]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return [_adamw([group for group in groups if group["params"]], settings)]


def split_parameters(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Trainable parameters as (weights of linear maps, all others), each once, in the order of the model.

    A head that is tied to an embedding counts as the embedding.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    get_head = getattr(model, "get_output_embeddings", None)
    head = get_head() if get_head is not None else None
    if head is not None:
        embeddings.add(id(head.weight))
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear | Conv1D)} - embeddings
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices: list[Tensor] = [parameter for parameter in trainable if id(parameter) in linear]
    rest: list[Tensor] = [parameter for parameter in trainable if id(parameter) not in linear]
    return matrices, rest


def _adamw(groups: list[dict[str, object]], settings: TrainerSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        groups,
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        # The fused kernel is one pass over memory on CPU and GPU.
        fused=True,
    )
