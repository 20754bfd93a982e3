"""A fresh model made to depend clearly on every token, so that mistakes show which its initial weights would hide.

Fresh weights are small, and parts of them are zero (biases, the last layer of a residual branch, gates): a token
hardly matters to the tokens after it, and neither does a leak or a mistake in the carried state.
"""

import copy

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from seqbench.testing.tensors import other_tokens, random_tokens

# How far one token should move the logits after it. No more than needed: enlarged further, some recurrences magnify
# rounding too.
_EFFECT = 0.1
_FACTOR, _MOST_STEPS = 1.5, 12


def enliven(model: nn.Module, factor: float) -> nn.Module:
    """Enlarge the linear maps of a model in place."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear | Conv1D):
                module.weight.mul_(factor)
    return model


def lively(model: PreTrainedModel, vocab_size: int, length: int) -> PreTrainedModel:
    """A copy of `model` in evaluation mode, without constant parameters and with larger linear maps.

    Args:
        model: freshly built; it is left as it is, and never called.
        vocab_size: token ids to try it with.
        length: of the sequences to try it with, in tokens.
    """
    found = _vary_constants(copy.deepcopy(model).eval())
    for step in range(_MOST_STEPS):
        # A model of single tokens has no such effect at all.
        if not 0 < _effect(found, vocab_size, length) < _EFFECT:
            break
        larger = copy.deepcopy(found)
        # Models without a module for their linear maps: all their matrices, once the modules turn out not to do.
        enliven(larger, _FACTOR) if step < _MOST_STEPS // 2 else _enlarge_matrices(larger, _FACTOR)
        if not torch.isfinite(torch.tensor(_effect(larger, vocab_size, length))):
            break
        found = larger
    return found


@torch.no_grad()
def _vary_constants(model: PreTrainedModel) -> PreTrainedModel:
    """Give constant parameters entries of their own: zeros those of a linear map, others within a hundredth."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if not parameter.is_floating_point() or bool((parameter != parameter.flatten()[0]).any()):
            continue
        noise = torch.randn(parameter.shape, generator=generator).to(parameter)
        if parameter.flatten()[0] == 0:
            # The deviation of a common initial linear map; a tenth for biases and gates.
            parameter.copy_(noise * (parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.1))
        else:
            parameter.mul_(1 + 0.01 * noise)
    return model


@torch.no_grad()
def _enlarge_matrices(model: nn.Module, factor: float) -> None:
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.mul_(factor)


@torch.no_grad()
def _effect(model: PreTrainedModel, vocab_size: int, length: int) -> float:
    """Of one token on the logits that follow it. On a copy: a model that remembers calls must not remember these."""
    model = copy.deepcopy(model)
    tokens, place = random_tokens(2, length, vocab_size), length // 2
    changed = tokens.clone()
    changed[:, place] = other_tokens(tokens[:, place], vocab_size)
    difference: Tensor = model(tokens.to(model.device)).logits - model(changed.to(model.device)).logits
    return difference[:, place + 1 :].abs().max().item()
