"""Clauses on a model's arguments: each does what it says, and none is swallowed."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqbench.contracts import IGNORED_LABEL
from seqbench.nn import STATE_NAMES, state_argument, state_of
from seqbench.testing.model.probe import Probe
from seqbench.testing.model.subject import LENGTH, VOCABULARY, ModelSubject
from seqbench.testing.report import ClauseFailure
from seqbench.testing.tensors import largest_difference, other_tokens, random_tokens, scatter_rows

_SWALLOWED = (
    "a **keywords that nobody reads turns a misspelt argument into wrong numbers; decorate forward with"
    " seqbench.nn.transformers_call, or build on seqbench.nn.CausalCall"
)


def arguments(subject: ModelSubject) -> None:
    """An argument that the model does not have is refused by name; the state may be named past_key_values or cache.

    transformers renames it in 5.24; both names at once have to mean the same state.
    """
    probe = subject.probe()
    tokens = random_tokens(2, 12, VOCABULARY)
    for name, value in (("attention_masks", torch.ones_like(tokens)), ("no_such_argument", 1)):
        _require_refused(probe, tokens, name, value)
    # What the state is worth is the business of other clauses.
    if "chunked" not in subject.exemptions:
        _require_both_names(probe, tokens)


@torch.no_grad()
def _require_refused(probe: Probe, tokens: Tensor, name: str, value: Any) -> None:
    try:
        probe.model(tokens, **{name: value})
    # Whatever says so, and says of what.
    except Exception as error:
        if name not in str(error):
            raise ClauseFailure(
                f"an argument {name!r} raises {type(error).__name__}: {error}\nwhich does not name it", _SWALLOWED
            ) from error
        return
    raise ClauseFailure(f"an argument {name!r}, which no model has, is accepted and not used", _SWALLOWED)


@torch.no_grad()
def _require_both_names(probe: Probe, tokens: Tensor) -> None:
    first, second = tokens[:, :7], tokens[:, 7:]
    state = state_of(probe.model(first, use_cache=True))
    if state is None:
        raise ClauseFailure("the model returns no state with use_cache=True under past_key_values or cache")
    alone = probe.logits(second)
    # Whether that is right is told by the clause on chunks.
    expected, _ = probe.feed(second, [5], copy.deepcopy(state))
    for name in STATE_NAMES:
        try:
            logits = probe.model(second, use_cache=True, **{name: copy.deepcopy(state)}).logits
        except TypeError as error:
            raise ClauseFailure(
                f"the state is not taken as {name!r}: {error}",
                "transformers before 5.24 calls it past_key_values, later releases cache: a model that is to work with"
                " all of them takes both; decorate forward with seqbench.nn.transformers_call",
            ) from error
        difference = largest_difference(logits, expected)
        if difference > probe.agreement(expected):
            ignored = largest_difference(logits, alone) <= probe.agreement(alone)
            raise ClauseFailure(
                f"with the state as {name!r}, what follows differs by {difference:.1e} from what does with it as"
                f" {state_argument(probe.model)!r}"
                f"{', as if no state had been given' if ignored else ''}",
                _SWALLOWED,
            )
    states = {name: copy.deepcopy(state) for name in STATE_NAMES}
    try:
        probe.model(second, use_cache=True, **states)
    # Whatever says so.
    except Exception:
        return
    raise ClauseFailure(
        f"{' and '.join(STATE_NAMES)} with different states are accepted: one of them is not used", _SWALLOWED
    )


def labels(subject: ModelSubject) -> None:
    """With labels the loss is the mean cross-entropy over the labelled tokens, shifted by one; -100 is no label.

    The labels decide it and not the input, padded rows included; it can be trained on.
    """
    probe = subject.probe()
    tokens = random_tokens(3, 20, VOCABULARY)
    some = other_tokens(tokens, VOCABULARY)
    # Rows of different numbers of labels, the first and the last token labelled in one of them.
    some[0, 1:15] = IGNORED_LABEL
    some[1, :18] = IGNORED_LABEL
    padded, mask = scatter_rows([tokens[0], tokens[1, :9]], [range(20), range(11, 20)], 20)
    for what, ids, given, labelled in (
        ("the input itself", tokens, None, tokens),
        ("other tokens at some places and -100 at the others", tokens, None, some),
        ("-100 at the padding of a row", padded, mask, padded.masked_fill(mask == 0, IGNORED_LABEL)),
    ):
        _require_loss(probe, what, ids, given, labelled)


def _require_loss(probe: Probe, what: str, ids: Tensor, mask: Tensor | None, labelled: Tensor) -> None:
    with torch.enable_grad():
        output = probe.model(ids.clone(), attention_mask=mask, labels=labelled.clone())
    loss, wanted = output.loss, probe.logits(ids, mask)
    shown = f"labels are {what}"
    if loss is None:
        raise ClauseFailure(f"where {shown}, the model returns no loss", "labels are ignored")
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise ClauseFailure(f"where {shown}, loss is {loss!r}, expected one number")
    per_token = F.cross_entropy(
        wanted[:, :-1].flatten(0, 1), labelled[:, 1:].flatten(), ignore_index=IGNORED_LABEL, reduction="none"
    )
    count = int((labelled[:, 1:] != IGNORED_LABEL).sum())
    expected = per_token.sum().item() / count
    if not abs(loss.item() - expected) <= probe.agreement(wanted):
        raise ClauseFailure(
            f"where {shown}, loss is {loss.item():.4f}, expected {expected:.4f}: the mean over the {count} labelled"
            f" tokens from the second on{_likeness(loss.item(), wanted, ids, labelled, per_token)}",
            "self.loss_function of transformers shifts the labels, leaves out -100 and takes the mean",
        )
    if not loss.requires_grad:
        raise ClauseFailure("the loss has no gradient: the model cannot be trained on it", "it is detached")
    if output.logits.shape != wanted.shape or largest_difference(output.logits.detach(), wanted) > probe.agreement(
        wanted
    ):
        raise ClauseFailure("with labels, the logits are not those without labels")


def _likeness(loss: float, logits: Tensor, ids: Tensor, labelled: Tensor, per_token: Tensor) -> str:
    """What a wrong loss is equal to, where it is one of the usual mistakes."""
    unshifted = F.cross_entropy(logits.flatten(0, 1), labelled.flatten(), ignore_index=IGNORED_LABEL)
    itself = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    mistakes = {
        "that of labels which are not shifted": unshifted.item(),
        "that of the input, whatever the labels": itself.item(),
        "their sum": per_token.sum().item(),
        "divided by all tokens, labelled or not": per_token.mean().item(),
    }
    found = [name for name, value in mistakes.items() if abs(loss - value) <= 1e-3 * max(1.0, abs(value))]
    return f"; it is {found[0]}" if found else ""


@torch.no_grad()
def logits_to_keep(subject: ModelSubject) -> None:
    """logits_to_keep leaves that many logits at the end, 0 all, a tensor of positions those; the state is the same."""
    probe = subject.probe()
    tokens = random_tokens(2, LENGTH, VOCABULARY)
    whole = probe.logits(tokens)
    kept: list[int | Tensor] = [0, 1, 5, LENGTH, torch.tensor([3, 4, LENGTH - 1])]
    for keep in kept:
        expected = whole[:, keep] if isinstance(keep, Tensor) else whole[:, -keep:]
        shown = f"{keep.tolist()}" if isinstance(keep, Tensor) else f"{keep}"
        logits = probe.model(tokens.clone(), logits_to_keep=keep).logits
        _require_kept(probe, logits, expected, f"with logits_to_keep={shown}")
    if "chunked" in subject.exemptions:
        return
    following = []
    for keep in (0, 1):
        state = state_of(probe.model(tokens[:, :50].clone(), use_cache=True, logits_to_keep=keep))
        following.append(probe.feed(tokens[:, 50:], [LENGTH - 50], state)[0])
    _require_kept(probe, following[1], following[0], "behind a call with use_cache=True and logits_to_keep=1")


def _require_kept(probe: Probe, logits: Tensor, expected: Tensor, what: str) -> None:
    if logits.shape != expected.shape:
        raise ClauseFailure(
            f"{what}, logits of {expected.shape[0]} rows of {LENGTH} tokens have shape {tuple(logits.shape)}, expected"
            f" {tuple(expected.shape)}",
            "generate asks for the last position alone, and pays for all where that is ignored",
        )
    difference = largest_difference(logits, expected)
    if difference > probe.agreement(expected):
        raise ClauseFailure(f"{what}, logits differ by {difference:.1e} from those of the same positions without it")
