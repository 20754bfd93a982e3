"""Clauses on the carried state: what it continues, what it weighs, and what it must not carry."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from seqbench.nn import state_argument, state_of
from seqbench.testing.model.probe import Probe
from seqbench.testing.model.subject import LENGTH, VOCABULARY, ModelSubject, on_several_draws
from seqbench.testing.report import ClauseFailure
from seqbench.testing.tensors import (
    bytes_in,
    chunk_sizes,
    random_tokens,
    storage_bytes_in,
    tensors_in,
)

_LOST = (
    "usual causes: positions that begin again in each chunk, a state or convolution history that is not kept, a mask"
    " between cached and new tokens that is off by one"
)


def chunked(subject: ModelSubject) -> None:
    """Fed in chunks of any sizes, or token by token, with its state, it agrees with the full forward to 1e-4.

    A sequence in between, with a state of its own or none, changes nothing.
    """
    probe, sharpest = subject.probe(), subject.sharpest_probe()
    # Single tokens, and chunks around the 64 tokens at which some operations take another path.
    short = [[LENGTH], [1] * LENGTH, [7, 1, 30, 2, 30], [66, 4]]
    on_several_draws(partial(require_same_logits, probe, 2, LENGTH, short))
    # Many chunks of a power of two; single tokens in the midst of chunks, across powers of two.
    long = [[64] * 8, [50, 1, 99, 1, 3, 200]]
    on_several_draws(partial(require_same_logits, sharpest, 1, subject.long, long))
    on_several_draws(partial(_require_own_states, sharpest))


def require_same_logits(probe: Probe, batch: int, length: int, ways: Sequence[Sequence[int]], seed: int) -> None:
    """Random tokens fed in chunks of each of the sizes in `ways`, against the full forward."""
    tokens = random_tokens(batch, length, probe.vocabulary, seed=seed)
    whole = probe.logits(tokens)
    for sizes in ways:
        sizes = chunk_sizes(length, sizes)
        logits, _ = probe.feed(tokens, sizes)
        _compare(probe, logits, whole, f"fed in chunks of {_in_words(sizes)}")


def _compare(probe: Probe, logits: Tensor, whole: Tensor, how: str) -> None:
    """Raise ClauseFailure naming the first position that is off."""
    if logits.shape != whole.shape:
        raise ClauseFailure(f"{how}, logits have shape {tuple(logits.shape)}, expected {tuple(whole.shape)}")
    allowed = probe.agreement(whole)
    difference = (logits - whole).abs().amax(dim=(0, 2)).nan_to_num(nan=float("inf"))
    if difference.max() > allowed:
        first = int((difference > allowed).nonzero()[0])
        raise ClauseFailure(
            f"{how}, logits differ from the full forward by up to {difference.max():.1e}, first at position {first} of"
            f" {whole.shape[1]} ({probe.name}; allowed {allowed:.1e})",
            _LOST,
        )


def _require_own_states(probe: Probe, seed: int) -> None:
    """Two sequences in turns, and a call without a state between them."""
    first, second = random_tokens(2, LENGTH, probe.vocabulary, seed=seed).unsqueeze(1)
    wholes = probe.logits(first), probe.logits(second)
    parts: list[list[Tensor]] = [[], []]
    states: list[Any] = [None, None]
    for chunks in zip(first.split(23, dim=1), second.split(23, dim=1), strict=True):
        for which, chunk in enumerate(chunks):
            logits, states[which] = probe.feed(chunk, [chunk.shape[1]], states[which])
            parts[which].append(logits)
        again = probe.logits(first[:, :5])
        _compare(probe, again, wholes[0][:, :5], "without a state, after calls that carried one")
    for own, whole in zip(parts, wholes, strict=True):
        _compare(probe, torch.cat(own, dim=1), whole, "fed in turns with another sequence")


def state_bytes(subject: ModelSubject) -> None:
    """The declared state bytes are those of the tensors in the state, after any number of tokens in any chunks."""
    tokens = random_tokens(1, 200, VOCABULARY)
    probe = subject.probe()
    for length in (1, 2, 50, min(131, subject.long)):
        _require_bytes(subject, probe.feed(tokens[:, :length], [length])[1], [length])
    state: Any = None
    fed: list[int] = []
    for size in chunk_sizes(min(128, subject.long), (*[1] * 50, 7, 70)):
        _, state = probe.feed(tokens[:, sum(fed) : sum(fed) + size], [size], state)
        fed.append(size)
        if len(fed) in (2, 50, 51, 53):
            _require_bytes(subject, state, fed)


def _require_bytes(subject: ModelSubject, state: Any, sizes: Sequence[int]) -> None:
    length = sum(sizes)
    declared, found = subject.plugin.state_bytes(subject.config, length), bytes_in(state)
    fed = f"{length} tokens in chunks of {_in_words(sizes)}"
    if not isinstance(declared, int) or declared < 0:
        raise ClauseFailure(f"state_bytes() of {length} tokens is {declared!r}, expected a whole number")
    if declared != found:
        largest = sorted((tuple(tensor.shape) for tensor in tensors_in(state)), key=lambda shape: -_product(shape))
        raise ClauseFailure(
            f"after {fed} the state holds {found:,} bytes and state_bytes() declares {declared:,}"
            f" ({len(largest)} tensors, the largest of shapes {', '.join(map(str, largest[:3]))})",
            "count every tensor that a sequence's state holds, masks and counters included, at its own dtype",
        )
    kept = storage_bytes_in(state)
    # Allocations come in steps, and a view of a few tokens costs little: half as much again is neither.
    if kept > 1.5 * found + 4096:
        raise ClauseFailure(
            f"after {fed} the state's tensors hold {found:,} bytes and keep {kept:,} alive",
            "a slice of a larger tensor keeps all of it in memory; store a copy (.clone() or .contiguous())",
        )


def state_detached(subject: ModelSubject) -> None:
    """The state carries no gradient from one call into the next, in evaluation or in training mode."""
    tokens = random_tokens(2, LENGTH, VOCABULARY)
    for training in (False, True):
        model, state = subject.fresh().train(training), None
        for chunk in tokens.split(35, dim=1):
            state = state_of(model(chunk, use_cache=True, **{state_argument(model): state}))
            held = [tensor for tensor in tensors_in(state) if tensor.requires_grad]
            if held:
                raise ClauseFailure(
                    f"{len(held)} tensors of the state require a gradient, the first of shape {tuple(held[0].shape)}",
                    "detach what goes into the state: gradients would reach back through all earlier calls",
                )


def _in_words(sizes: Sequence[int]) -> str:
    if len(sizes) == 1:
        return f"all {sizes[0]}"
    if set(sizes) == {1}:
        return "one token"
    return " + ".join(map(str, sizes[:6])) + (" + ..." if len(sizes) > 6 else "")


def _product(shape: Sequence[int]) -> int:
    return torch.Size(shape).numel()
