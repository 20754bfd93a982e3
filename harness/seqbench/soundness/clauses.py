"""The short forms of the clauses that a score rests on; `bench check` has the long ones."""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from seqbench.contracts import Batch
from seqbench.soundness.subject import RunSubject, draws_random_numbers
from seqbench.testing.model.padding import require_inert, require_pad_ids_inert
from seqbench.testing.model.probe import Probe
from seqbench.testing.model.sequence import (
    require_no_company,
    require_no_exchange,
    require_no_leak,
    require_no_length,
)
from seqbench.testing.model.streaming import require_same_logits
from seqbench.testing.model.subject import on_several_draws
from seqbench.testing.report import ClauseFailure
from seqbench.testing.tensors import other_tokens, random_tokens

# Where the future is changed: around the borders of common blocks.
_PLACES = (1, 2, 3, 4, 5, 8, 9, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65)
_MODES = (False, True)


def causal(subject: RunSubject) -> None:
    """No prediction depends on later tokens, in evaluation or in training mode."""
    sharpest, length = subject.sharpest_probe(), subject.length
    places = [place for place in _PLACES if place < length - 1] + [length - 1]
    row = random_tokens(1, length, subject.vocabulary)
    for probe, chosen in ((sharpest, places), (subject.probe(), places[:: len(places) // 3])):
        for training in _MODES:
            require_no_leak(probe, row, chosen, training)
    _require_causal_when_long(sharpest, subject)
    cuts = sorted({1, length // 4, length - 1})
    on_several_draws(partial(require_no_length, sharpest, 1, length, cuts))


def _require_causal_when_long(probe: Probe, subject: RunSubject) -> None:
    row, batch = subject.long_row, subject.batch
    for training in _MODES:
        if row is not None:
            require_no_leak(probe, row, _thirds(row.shape[1]), training)
        if batch is not None and batch.input_ids.shape[1] > 1:
            mask = None if batch.attention_mask is None else batch.attention_mask[:1]
            require_no_leak(probe, batch.input_ids[:1], _thirds(batch.input_ids.shape[1]), training, mask)
    if row is not None:
        length = row.shape[1]
        on_several_draws(partial(require_no_length, probe, 1, length, (length // 2, length - 1)))


def rows_independent(subject: RunSubject) -> None:
    """The rows of a batch do not influence each other, in evaluation or in training mode."""
    sharpest, batch = subject.sharpest_probe(), subject.batch
    tokens = random_tokens(3, subject.length, subject.vocabulary)
    for training in _MODES:
        for probe in (sharpest, subject.probe()):
            require_no_exchange(probe, tokens, training)
        if batch is not None and len(batch.input_ids) > 1:
            require_no_exchange(sharpest, batch.input_ids, training, batch.attention_mask)
    on_several_draws(partial(require_no_company, sharpest, subject.length))


def chunked(subject: RunSubject) -> None:
    """Fed in chunks or token by token, with its state, it agrees with the full forward; in evaluation mode."""
    probe, length = subject.sharpest_probe(), subject.length
    with torch.no_grad():
        output = subject.probe().model(random_tokens(1, 2, subject.vocabulary).to(probe.model.device), use_cache=True)
    if getattr(output, "past_key_values", None) is None:
        raise ClauseFailure(
            "it returns no state that continues a sequence (past_key_values is None)",
            "return what the next call needs; a model that has no such state says so in its exemptions",
        )
    ways = [[1] * 4, [length // 2, 1, 1, length // 4], [length - 1]]
    on_several_draws(partial(require_same_logits, probe, 2, length, ways))


def padding(subject: RunSubject) -> None:
    """Padding on the left, on the right or between real tokens changes no prediction, whatever id it has.

    In training mode too; where random numbers are drawn there, that is tried on batches of one shape.
    """
    probe = subject.sharpest_probe()
    lengths, wheres = _row_lengths(subject.length), ("right", "left", "between tokens")
    on_several_draws(partial(require_inert, probe, lengths, wheres))
    if draws_random_numbers(probe.model, random_tokens(1, 4, subject.vocabulary)):
        require_pad_ids_inert(probe, lengths, "between tokens", 0, training=True)
    else:
        on_several_draws(partial(require_inert, probe, lengths, ("between tokens",), training=True))


# In the order in which they are tried.
CLAUSES: dict[str, Callable[[RunSubject], None]] = {
    "causal": causal,
    "rows-independent": rows_independent,
    "chunked": chunked,
    "padding": padding,
}


def trained_causal(probe: Probe, batch: Batch) -> None:
    """No prediction of the trained model depends on later tokens of a test sequence, in either mode."""
    mask = None if batch.attention_mask is None else batch.attention_mask[:1]
    if batch.input_ids.shape[1] > 1:
        for training in _MODES:
            require_no_leak(probe, batch.input_ids[:1], _thirds(batch.input_ids.shape[1]), training, mask)


def trained_rows_independent(probe: Probe, batch: Batch) -> None:
    """The trained model predicts a test sequence as well whatever the other rows hold, in either mode."""
    tokens, mask = batch.input_ids, batch.attention_mask
    if len(tokens) == 1:
        # A task that reads its sequences one by one.
        tokens = torch.cat((tokens, other_tokens(tokens, probe.vocabulary)))
        mask = None if mask is None else mask.expand(2, -1)
    for training in _MODES:
        require_no_exchange(probe, tokens, training, mask)


# Of the trained model, in the order in which they are tried.
TRAINED_CLAUSES: dict[str, Callable[[Probe, Batch], None]] = {
    "causal": trained_causal,
    "rows-independent": trained_rows_independent,
}


def _thirds(length: int) -> list[int]:
    """Places near the beginning, in the middle and at the end of a sequence of two or more tokens."""
    return sorted({max(1, length // 4), max(1, length // 2), length - 1})


def _row_lengths(length: int) -> Sequence[int]:
    """Lengths of padded rows, in a batch no wider than that."""
    return tuple(sorted({max(1, min(20, length) * share // 20) for share in (20, 13, 5, 1)}, reverse=True))
