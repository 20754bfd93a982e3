"""What PMNet can tell of its memory on a batch: how tokens are routed, how phases spread, how far gradients reach.

Measured on the first rows of the batch that together hold 4,096 tokens at most (one row at least), in evaluation mode,
with one forward and one backward pass. Padding is left out. Levels are counted from the root, 0.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pmnet_plugin.memory import Recurrence
from pmnet_plugin.modeling import PMNetForCausalLM
from seqbench.contracts import IGNORED_LABEL, Batch, Measurement
from seqbench.nn import evaluation_mode

# Enough for shares of groups to a percent or so, and about the cost of one training step of the smallest preset.
_TOKENS = 4096
# Of a level with more groups than this only the summaries are told.
_MOST_GROUPS_LISTED = 256


def diagnose(model: PMNetForCausalLM, batch: Batch) -> list[Measurement]:
    """Measurements of the split "training"; n is the number of tokens behind each. None without a memory.

    For each level that tokens are routed to, from level 1 on and in a routed tree only:
        routing_entropy: entropy of the groups' shares of tokens over the logarithm of the number of groups; 1 is
            uniform, 0 one group for all.
        dead_groups: share of the groups that no token was routed to.
        group_usage: by group, its share of the tokens times the number of groups; 1 is uniform. Levels of more than
            256 groups have none.

    For each level:
        phase_spread: 1 - |mean over the tokens of exp(i R)|, averaged over the N x M angles; R is what the level's
            write adds to m (arXiv 2605.13370), with relaxed dynamics the angle of z. All groups together; 0 means that
            all tokens see the same phases, 1 that they see all phases alike.
        recurrence_gradient_norm: by distance, the norm of the gradient that reaches a token's increment D of the phases
            (with relaxed dynamics: of z) from the loss of its row's last labelled position, `distance` to 2 x distance
            - 1 tokens later; count-scaled as in training; mean over tokens and rows. What reaches D through R does so
            undiminished at any distance, where dynamics are unitary.
    """
    if not model.config.use_memory:
        return []
    rows = batch.rows(0, max(1, _TOKENS // batch.input_ids.shape[1])).to(model.device)
    mask = rows.attention_mask
    real = torch.ones_like(rows.input_ids, dtype=torch.bool) if mask is None else mask != 0
    with evaluation_mode(model), torch.enable_grad(), _observed(model) as levels:
        output = model(rows.input_ids, attention_mask=mask, output_routing=True)
        losses = _last_losses(output.logits, rows.labels)
        gradients = torch.autograd.grad(losses.sum(), [level.increments for level in levels]) if len(losses) else ()
    measurements: list[Measurement] = []
    # The last level's next groups lead nowhere.
    for index, groups in enumerate(output.next_groups[: len(levels) - 1], start=1):
        measurements += _routing(index, groups[real], model.config.groups_at(index))
    # Inside the model the real tokens of a row come first.
    packed = torch.arange(real.shape[1], device=real.device) < real.sum(dim=1, keepdim=True)
    for index, level in enumerate(levels):
        spread = _spread(level.angles[packed])
        measurements.append(_measurement("phase_spread", spread, "fraction", int(packed.sum()), level=index))
    distance = _distance_to_last_label(rows.labels, real)
    for index, gradient in enumerate(gradients):
        measurements += _gradient_norms(index, gradient, distance, model.config.memory_dynamics)
    return measurements


@dataclass
class _Level:
    """What went into and came out of a level's recurrence, tokens packed to the front of each row.

    Attributes:
        increments: D, (B, T, N, M), or (B, T, N, 2M) with relaxed dynamics; part of the graph.
        angles: R, (B, T, N, M) radians.
    """

    increments: Tensor
    angles: Tensor


@contextmanager
def _observed(model: PMNetForCausalLM) -> Iterator[list[_Level]]:
    """Filled, level by level, as the model runs."""
    levels: list[_Level] = []
    relaxed = model.config.memory_dynamics == "relaxed"

    def require_gradient(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        # With frozen weights nothing before this point asks for a gradient.
        if not inputs[0].requires_grad:
            inputs[0].requires_grad_()

    def record(module: nn.Module, inputs: tuple[Any, ...], outputs: tuple[Tensor, Tensor | None]) -> None:
        angles = outputs[0].detach()
        if relaxed:
            real, imaginary = angles.chunk(2, dim=-1)
            angles = torch.atan2(imaginary, real)
        levels.append(_Level(inputs[0], angles))

    handles: list[RemovableHandle] = []
    for module in model.modules():
        if isinstance(module, Recurrence):
            handles += [module.register_forward_pre_hook(require_gradient), module.register_forward_hook(record)]
    try:
        yield levels
    finally:
        for handle in handles:
            handle.remove()


def _last_labels(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Rows that have a label, and the place of each one's last."""
    labelled = labels != IGNORED_LABEL
    places = torch.arange(labels.shape[1], device=labels.device)
    last = torch.where(labelled, places, -1).amax(dim=1)
    rows = (last >= 0).nonzero().flatten()
    return rows, last[rows]


def _last_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy in nats at each row's last label; rows without one are left out."""
    rows, last = _last_labels(labels)
    return F.cross_entropy(logits[rows, last].float(), labels[rows, last], reduction="none")


def _distance_to_last_label(labels: Tensor, real: Tensor) -> Tensor:
    """(B, T) in packed order: how many tokens before its row's last label a token stands; below 1 where it does not."""
    rows, last = _last_labels(labels)
    positions = real.cumsum(dim=1) - 1
    end = torch.full_like(labels[:, 0], -1)
    end[rows] = positions[rows, last]
    return end.unsqueeze(1) - torch.arange(labels.shape[1], device=labels.device)


def _routing(level: int, groups: Tensor, number_of_groups: int) -> Sequence[Measurement]:
    tokens = groups.numel()
    shares = groups.cpu().bincount(minlength=number_of_groups).double() / tokens
    entropy = -torch.special.xlogy(shares, shares).sum() / math.log(number_of_groups)
    dead = (shares == 0).double().mean()
    told = [
        _measurement("routing_entropy", entropy.item(), "fraction", tokens, level=level),
        _measurement("dead_groups", dead.item(), "fraction", tokens, level=level),
    ]
    if number_of_groups <= _MOST_GROUPS_LISTED:
        for group, usage in enumerate((shares * number_of_groups).tolist()):
            told.append(_measurement("group_usage", usage, "ratio", tokens, level=level, group=group))
    return told


def _spread(angles: Tensor) -> float:
    """1 - |mean exp(i angle)| over the first dimension, averaged over the others."""
    return 1 - torch.hypot(angles.cos().mean(dim=0), angles.sin().mean(dim=0)).mean().item()


def _gradient_norms(level: int, gradient: Tensor, distance: Tensor, dynamics: str) -> Iterator[Measurement]:
    """Mean norms in buckets of distance 1, 2 to 3, 4 to 7, ... tokens."""
    earlier = distance >= 1
    norms = gradient.double().flatten(2).norm(dim=2)[earlier].cpu()
    # Of a whole number the exponent of its binary notation, exactly.
    bucket = torch.frexp(distance[earlier].double().cpu()).exponent.long() - 1
    counts = bucket.bincount().tolist()
    sums = bucket.bincount(weights=norms).tolist()
    unit = "nats per radian" if dynamics == "unitary" else "nats"
    for power, (count, total) in enumerate(zip(counts, sums, strict=True)):
        if count:
            where = {"level": level, "distance": 2**power}
            yield _measurement("recurrence_gradient_norm", total / count, unit, count, **where)


def _measurement(metric: str, value: float, unit: str, tokens: int, **coordinates: int) -> Measurement:
    return Measurement(metric, value, unit, tokens, "training", coordinates)
