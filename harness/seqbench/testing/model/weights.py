"""Clauses on weights and repeats: initialisation, gradients, and the same numbers every time."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from seqbench.testing.model.subject import LENGTH, VOCABULARY, ModelSubject
from seqbench.testing.report import ClauseFailure, few
from seqbench.testing.tensors import (
    gradients_of,
    largest_difference,
    next_token_loss,
    random_tokens,
    same_bits,
    scatter_rows,
)


def finite_gradients(subject: ModelSubject) -> None:
    """In training, every parameter has a finite gradient, and none is left out: each one's gradient is not all zero.

    Finite also for a sequence of one repeated token, for two tokens, and for padded rows.
    """
    model = subject.fresh().train()
    tokens = random_tokens(4, LENGTH, VOCABULARY)
    inputs: dict[str, tuple[Tensor, Tensor | None]] = {
        f"4 rows of {LENGTH} random tokens": (tokens, None),
        "one token 20 times": (torch.full((2, 20), 3), None),
        "two tokens": (tokens[:1, :2], None),
        "rows with padding": scatter_rows([tokens[0, :9], tokens[1, :2]], [range(9), range(7, 9)], 9),
    }
    for name, (batch, mask) in inputs.items():
        gradients = gradients_of(model, next_token_loss(model, batch, mask))
        for parameter, gradient in gradients.items():
            if gradient is not None and not gradient.isfinite().all():
                count = int((~gradient.isfinite()).sum())
                raise ClauseFailure(
                    f"{count} of {gradient.numel()} entries of the gradient of {parameter} are not finite ({name})",
                    "usual causes: a root or logarithm of zero, a division by a count of zero, a softmax over nothing",
                )
    _require_use(subject, tokens)


def _require_use(subject: ModelSubject, tokens: Tensor) -> None:
    """On lively weights: behind a fresh last layer of zeros every gradient is zero for a while."""
    model = subject.probe().model.train()
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    if frozen:
        raise ClauseFailure(
            f"{few(frozen)} with requires_grad=False: counted as parameters, and never trained",
            "register what is fixed as a buffer",
        )
    gradients = gradients_of(model, next_token_loss(model, tokens))
    unused = [name for name, gradient in gradients.items() if gradient is None]
    if unused:
        raise ClauseFailure(
            f"{few(unused)} of {len(gradients)} parameters without a gradient: they take no part in the prediction",
            "take parameters out that are not used: they would be counted, stored and matched for nothing",
        )
    unmoved = [name for name, gradient in gradients.items() if gradient is not None and not gradient.any()]
    if unmoved:
        raise ClauseFailure(
            f"{few(unmoved)} of {len(gradients)} parameters with a gradient of zero everywhere: they cannot learn",
            "usual causes: a detached branch, a result that is multiplied by zero or overwritten",
        )


def seeded_initialisation(subject: ModelSubject) -> None:
    """Initial weights follow from torch's global seed, and from nothing else; all of them are set."""
    first, again, other = (_seeded_state(subject, seed, elsewhere) for seed, elsewhere in ((1, 1), (1, 2), (2, 1)))
    differing = [name for name, tensor in first.items() if not same_bits(tensor, again[name])]
    if differing:
        raise ClauseFailure(
            f"{few(differing)} of {len(first)} tensors differ between two models built after the same seed",
            "draw from torch's global generator only, not from random, NumPy or a generator without a seed",
        )
    if all(same_bits(first[name], other[name]) for name in first):
        raise ClauseFailure(
            "seeds 1 and 2 give the same initial weights",
            "build() must not set a seed of its own: the run's seed is set before it is called",
        )
    with _filled_with_nan():
        unset = [name for name, tensor in subject.fresh().state_dict().items() if _holds_nan(tensor)]
    if unset:
        raise ClauseFailure(
            f"{few(unset)} of {len(first)} tensors keep what happened to be in memory",
            "initialise every parameter: PreTrainedModel._init_weights is called for modules, and passes over"
            " parameters that it does not know",
        )


def deterministic(subject: ModelSubject) -> None:
    """Repeats give the same bits; evaluation draws no random numbers and changes no weights, inputs or later results.

    Training repeats to the bit after the same seed.
    """
    probe = subject.probe()
    tokens = random_tokens(2, LENGTH, VOCABULARY)
    mask = torch.ones_like(tokens)
    weights = {name: tensor.clone() for name, tensor in probe.model.state_dict().items()}
    given, given_mask, before = tokens.clone(), mask.clone(), torch.random.get_rng_state()
    with torch.no_grad():
        first = probe.model(given, attention_mask=given_mask).logits
        drawn = not torch.equal(before, torch.random.get_rng_state())
        again = probe.model(tokens.clone(), attention_mask=mask.clone()).logits
        for other in (random_tokens(2, 31, VOCABULARY), random_tokens(1, LENGTH, VOCABULARY, seed=5)):
            probe.model(other)
        later = probe.model(tokens.clone(), attention_mask=mask.clone()).logits
    if drawn:
        raise ClauseFailure(
            "the forward pass draws random numbers in evaluation mode",
            "usual causes: dropout that ignores self.training, random features drawn at every call",
        )
    if not torch.equal(tokens, given) or not torch.equal(mask, given_mask):
        raise ClauseFailure("the forward pass changes its input_ids or its attention_mask", "work on a copy")
    for when, logits in (("at once", again), ("after other calls", later)):
        if not same_bits(logits, first):
            raise ClauseFailure(
                f"the same call repeated {when} gives logits that differ by {largest_difference(logits, first):.1e}",
                "usual causes: something kept on the module between calls, random numbers, the time",
            )
    changed = [name for name, tensor in probe.model.state_dict().items() if not same_bits(tensor, weights[name])]
    if changed:
        raise ClauseFailure(f"a forward pass in evaluation mode changes {few(changed)}", "update nothing in evaluation")
    _require_training_repeats(subject, tokens)


def _require_training_repeats(subject: ModelSubject, tokens: Tensor) -> None:
    repeats = []
    for _ in range(2):
        model = subject.fresh().train()
        torch.manual_seed(1)
        loss = next_token_loss(model, tokens)
        repeats.append({"the loss": loss.detach(), **gradients_of(model, loss)})
    for name, first in repeats[0].items():
        again = repeats[1][name]
        if first is not None and again is not None and not same_bits(first, again):
            raise ClauseFailure(
                f"two training steps of models built and run after the same seeds differ in {name} by"
                f" {largest_difference(again, first):.1e}",
                "draw from torch's global generator only",
            )


def _seeded_state(subject: ModelSubject, seed: int, elsewhere: int) -> dict[str, Tensor]:
    """Weights of a model built after `seed`, where the generators of Python and NumPy stand at `elsewhere`."""
    random.seed(elsewhere)
    np.random.seed(elsewhere)
    return subject.fresh(seed).state_dict()


@contextmanager
def _filled_with_nan() -> Iterator[None]:
    """Memory that nobody has written to holds NaN, as torch offers in its deterministic mode."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _holds_nan(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool(tensor.isnan().any())
