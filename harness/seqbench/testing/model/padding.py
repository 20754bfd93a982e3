"""Clauses on padding: it influences neither predictions, nor gradients, nor the state that is left behind."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from seqbench.testing.clause import told_of
from seqbench.testing.model.probe import Probe
from seqbench.testing.model.subject import ModelSubject, on_several_draws
from seqbench.testing.report import ClauseFailure
from seqbench.testing.tensors import (
    gradients_of,
    largest_difference,
    next_token_loss,
    random_tokens,
    scatter_rows,
)

_HINT = (
    "usual causes: positions that count padding, a recurrence, convolution or norm that takes padding in; moving the"
    " real tokens to the front of each row first (seqbench.nn.pack_rows) makes padding inert in every layer"
)
# Row lengths of the batches that are tried, the longest without padding, and one past 64 tokens.
_SHORT, _LONG_ROWS = (20, 13, 5, 1), (90, 70, 33, 2)


def padding(subject: ModelSubject) -> None:
    """Padding on the left, on the right, on both sides or between real tokens changes no prediction and no gradient.

    A mask of ones is no mask, and a row of nothing but padding does not disturb the others.
    """
    sharpest = subject.sharpest_probe()
    on_several_draws(partial(require_inert, sharpest, _SHORT, ("right", "left", "both sides", "between tokens")))
    on_several_draws(partial(require_inert, subject.probe(), _LONG_ROWS, ("left", "between tokens")))
    _require_empty_rows_inert(sharpest)
    on_several_draws(partial(_require_gradients, sharpest, not subject.draws_in_training))


def padding_state(subject: ModelSubject) -> None:
    """A padded prompt leaves the state of the same prompt without padding, and so does padding in a later chunk."""
    sharpest = subject.sharpest_probe()
    for where in _arrangements(_SHORT):
        on_several_draws(partial(_require_no_trace, sharpest, where))
    on_several_draws(partial(_require_no_trace_of_chunks, subject.probe()))


def _arrangements(lengths: Sequence[int]) -> dict[str, list[Sequence[int]]]:
    """Columns of the real tokens of each row, by where the padding is, in a batch as wide as the longest row."""
    width = max(lengths)
    generator = torch.Generator().manual_seed(0)
    scattered: list[Sequence[int]] = [
        torch.randperm(width, generator=generator)[:length].sort().values.tolist() for length in lengths
    ]
    return {
        "right": [range(length) for length in lengths],
        "left": [range(width - length, width) for length in lengths],
        "both sides": [range((width - length) // 2, (width - length) // 2 + length) for length in lengths],
        "between tokens": scattered,
    }


def _rows(probe: Probe, lengths: Sequence[int], seed: int) -> list[Tensor]:
    return [random_tokens(1, length, probe.vocabulary, seed=1000 * seed + length)[0] for length in lengths]


def require_inert(
    probe: Probe, lengths: Sequence[int], wheres: Sequence[str], seed: int, training: bool = False
) -> None:
    """Rows of those lengths, padded in those ways, against each row alone."""
    rows = _rows(probe, lengths, seed)
    alone = [probe.logits(row.unsqueeze(0), None, training)[0] for row in rows]
    full = torch.ones(1, len(rows[0]), dtype=torch.int64)
    _compare(probe, probe.logits(rows[0].unsqueeze(0), full, training)[0], alone[0], "a mask of ones")
    for where in wheres:
        mask, by_pad = _by_pad_ids(probe, rows, where, training)
        for row, expected in enumerate(alone):
            what = f"padding ({where}) around {lengths[row]} tokens in a batch of width {max(lengths)}"
            for logits in by_pad:
                _compare(probe, logits[row, mask[row].bool()], expected, what)
        _require_same(probe, mask, by_pad, where)


def require_pad_ids_inert(probe: Probe, lengths: Sequence[int], where: str, seed: int, training: bool = False) -> None:
    """The ids under the padding have no influence; rows are compared in batches of one shape alone."""
    mask, by_pad = _by_pad_ids(probe, _rows(probe, lengths, seed), where, training)
    _require_same(probe, mask, by_pad, where)


def _by_pad_ids(probe: Probe, rows: Sequence[Tensor], where: str, training: bool) -> tuple[Tensor, list[Tensor]]:
    """The mask of a padded batch, and its logits with the first and with the last id under the padding."""
    lengths = [len(row) for row in rows]
    places, by_pad = _arrangements(lengths)[where], []
    for pad in (0, probe.vocabulary - 1):
        tokens, mask = scatter_rows(rows, places, max(lengths), pad)
        by_pad.append(probe.logits(tokens, mask, training))
    return mask, by_pad


def _require_same(probe: Probe, mask: Tensor, by_pad: Sequence[Tensor], where: str) -> None:
    first, last = (logits[mask.bool()] for logits in by_pad)
    difference = largest_difference(first, last)
    if difference > probe.rounding(first):
        raise ClauseFailure(
            f"another token id under the padding ({where}) changes logits of real tokens by {difference:.1e}"
            f" ({probe.name}; allowed {probe.rounding(first):.1e})",
            _HINT,
        )


def _require_empty_rows_inert(probe: Probe) -> None:
    rows = _rows(probe, (20, 13, 0), 0)
    for where, places in _arrangements((20, 13, 0)).items():
        with told_of(f"a batch of 3 rows ({where}) of which the last has no real token: its mask is zero everywhere"):
            logits = probe.logits(*scatter_rows(rows, places, 20))
        for row in (0, 1):
            alone = probe.logits(rows[row].unsqueeze(0))[0]
            what = f"{len(rows[row])} tokens ({where}) beside a row without a real token, whose mask is zero everywhere"
            _compare(probe, logits[row, list(places[row])], alone, what)


def _require_gradients(probe: Probe, training: bool, seed: int) -> None:
    """Of one row, padded and not; in training mode, unless dropout draws other numbers for another shape."""
    (row,) = _rows(probe, (20,), seed)
    expected = _gradients(probe, row.unsqueeze(0), None, training)
    for where, places in (
        ("right", range(20)),
        ("left", range(6, 26)),
        ("between tokens", [*range(2, 9), *range(11, 18), *range(20, 26)]),
    ):
        gradients = _gradients(probe, *scatter_rows([row], [places], 26), training)
        for name, gradient in gradients.items():
            difference = largest_difference(gradient, expected[name])
            if difference > probe.agreement(expected[name]):
                raise ClauseFailure(
                    f"padding ({where}) changes the gradient of {name} by {difference:.1e} ({probe.name}; allowed"
                    f" {probe.agreement(expected[name]):.1e})",
                    _HINT,
                )


def _gradients(probe: Probe, tokens: Tensor, mask: Tensor | None, training: bool) -> dict[str, Tensor]:
    """Of the next-token loss; a parameter without one is another clause's business."""
    probe.model.train(training)
    with probe.precision():
        gradients = gradients_of(probe.model, next_token_loss(probe.model, tokens, mask))
    probe.model.eval()
    return {name: gradient for name, gradient in gradients.items() if gradient is not None}


def _require_no_trace(probe: Probe, where: str, seed: int) -> None:
    """Prompts of three lengths in one padded batch, continued by further tokens."""
    lengths = _SHORT[:3]
    rows, rest = _rows(probe, lengths, seed), random_tokens(3, 6, probe.vocabulary, seed=seed + 8)
    continued = []
    for pad in (0, probe.vocabulary - 1):
        tokens, mask = scatter_rows(rows, _arrangements(lengths)[where], max(lengths), pad)
        _, state = probe.carry(tokens, mask)
        logits, _ = probe.feed(rest, [1, 4, 1], state)
        continued.append(logits)
    for row, prompt in enumerate(rows):
        whole = probe.logits(torch.cat((prompt, rest[row])).unsqueeze(0))[0, len(prompt) :]
        what = f"what follows a prompt of {len(prompt)} tokens with padding ({where}) to {max(lengths)}"
        _compare(probe, continued[0][row], whole, what)
    difference = largest_difference(*continued)
    if difference > probe.rounding(continued[0]):
        raise ClauseFailure(
            f"another token id under the padding ({where}) changes what follows the prompt by {difference:.1e}"
            f" ({probe.name}; allowed {probe.rounding(continued[0]):.1e})",
            _HINT,
        )


def _require_no_trace_of_chunks(probe: Probe, seed: int) -> None:
    """Three sequences in chunks of 8 columns: whole, padded inside, and with chunks of nothing but padding."""
    lengths = (32, 19, 12)
    places = [range(32), [*range(3, 8), *range(9, 16), 17, *range(26, 32)], [*range(4), *range(16, 24)]]
    rows = _rows(probe, lengths, seed)
    tokens, mask = scatter_rows(rows, places, 32)
    parts, state = [], None
    for chunk, chunk_mask in zip(tokens.split(8, dim=1), mask.split(8, dim=1), strict=True):
        with told_of(_empty_rows(chunk_mask)):
            part, state = probe.carry(chunk, chunk_mask, state)
        parts.append(part)
    logits = torch.cat(parts, dim=1)
    for row, expected in enumerate(rows):
        whole = probe.logits(expected.unsqueeze(0))[0]
        # The first row has tokens in every chunk.
        empty = " and some without a real token" if row else ""
        what = f"{lengths[row]} tokens in chunks of 8 with padding in them{empty}"
        _compare(probe, logits[row, list(places[row])], whole, what)


def _empty_rows(mask: Tensor) -> str:
    empty = (~mask.bool().any(dim=1)).nonzero().flatten().tolist()
    return f"a chunk of {len(mask)} rows" + (f" of which {empty} have no real token in it" if empty else "")


def _compare(probe: Probe, actual: Tensor, expected: Tensor, what: str) -> None:
    difference = largest_difference(actual, expected)
    if difference > probe.agreement(expected):
        raise ClauseFailure(
            f"{what}: logits differ from those of the row alone by {difference:.1e} ({probe.name}; allowed"
            f" {probe.agreement(expected):.1e})",
            _HINT,
        )
