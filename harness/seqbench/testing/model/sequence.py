"""Clauses on what a prediction may depend on: earlier tokens of the same row, as far back as is declared."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from seqbench.testing.clause import told_of
from seqbench.testing.model.probe import Probe
from seqbench.testing.model.subject import LENGTH, VOCABULARY, ModelSubject, on_several_draws
from seqbench.testing.place import place_of
from seqbench.testing.report import ClauseFailure
from seqbench.testing.tensors import largest_difference, other_tokens, random_tokens

_LEAK = (
    "usual causes: a sum, norm or maximum over the whole sequence, attention without a causal mask, a convolution"
    " padded on both sides, a state from the end of the sequence used at its beginning"
)


_VOCABULARIES = (VOCABULARY, 7)


def build(subject: ModelSubject) -> None:
    """The plugin builds a transformers model for the vocabulary of any task."""
    for vocab_size in _VOCABULARIES:
        model = _built(subject, vocab_size)
        if not isinstance(model, PreTrainedModel):
            raise ClauseFailure(
                f"build() returns a {type(model).__qualname__}, no transformers.PreTrainedModel",
                "derive the model from PreTrainedModel: saving, loading and generation come with it",
                place_of(type(subject.plugin), "build"),
            )


def forward(subject: ModelSubject) -> None:
    """The model can be called with a batch of token ids, and returns an output that has a tensor of logits."""
    model = _built(subject, VOCABULARY).eval()
    for batch, length in ((2, LENGTH), (1, 1)):
        with torch.no_grad(), told_of(f"{batch} rows of {length} random tokens with ids below {VOCABULARY}"):
            output = model(random_tokens(batch, length, VOCABULARY))
        if not isinstance(getattr(output, "logits", None), Tensor):
            raise ClauseFailure(
                f"forward() returns a {type(output).__qualname__} without a tensor of logits",
                "return transformers' CausalLMOutputWithPast(logits=..., past_key_values=...), or build on"
                " seqbench.nn.CausalCall",
                place_of(type(model), "forward"),
            )


def vocabulary(subject: ModelSubject) -> None:
    """Logits are finite fp32 numbers, one for each row, position and token of the task's vocabulary."""
    for vocab_size in _VOCABULARIES:
        model = _built(subject, vocab_size).eval()
        for batch, length in ((2, LENGTH), (1, 1), (3, 2)):
            with torch.no_grad():
                logits = model(random_tokens(batch, length, vocab_size)).logits
            _require_logits(logits, (batch, length, vocab_size), place_of(type(model), "forward"))


def _built(subject: ModelSubject, vocab_size: int) -> Any:
    torch.manual_seed(0)
    return subject.plugin.build(subject.plugin.with_vocabulary(subject.config, vocab_size))


def _require_logits(logits: Tensor, shape: tuple[int, ...], place: str) -> None:
    if tuple(logits.shape) != shape:
        raise ClauseFailure(
            f"logits have shape {tuple(logits.shape)}, expected {shape}: batch, length, vocabulary of the task",
            place=place,
        )
    if logits.dtype != torch.float32:
        raise ClauseFailure(f"logits are {logits.dtype}, expected torch.float32", place=place)
    if not logits.isfinite().all():
        count = int((~logits.isfinite()).sum())
        raise ClauseFailure(
            f"{count} of {logits.numel()} logits of a fresh model are not finite at batch {shape[0]}, length"
            f" {shape[1]}",
            "usual causes: a division by zero, a logarithm or root of what is not positive, a softmax over nothing",
            place,
        )


def causal(subject: ModelSubject) -> None:
    """No prediction depends on later tokens, in evaluation or in training mode; each depends on its own token."""
    # The first boundary of every block size up to 17 and of the common ones beyond: a leak may be there alone.
    places = [*range(1, 18), 20, 24, 25, 30, 31, 32, 33, 48, 50, 64, LENGTH - 1]
    far = [place for place in (LENGTH, 128, 200, 256, 512) if place < subject.long][-4:]
    sharpest = subject.sharpest_probe()
    _require_no_leak(sharpest, LENGTH, places, training=False)
    _require_no_leak(sharpest, subject.long, far, training=False)
    probe = subject.probe()
    for training in (False, True):
        _require_no_leak(probe, LENGTH, [1, 16, 33, 64], training)
        _require_no_leak(probe, subject.long, [far[len(far) // 2]], training)
    on_several_draws(partial(require_no_length, sharpest, 2, LENGTH, (1, 2, 17, 33, 64, LENGTH - 1)))
    on_several_draws(partial(require_no_length, sharpest, 1, subject.long, [*far, subject.long - 3]))


def _require_no_leak(probe: Probe, length: int, places: Sequence[int], training: bool) -> None:
    """On random tokens; the token at each place has an influence there, too."""
    own = require_no_leak(probe, random_tokens(1, length, probe.vocabulary, seed=length), places, training)
    if own.min() <= 1:
        where = places[int(own.argmin())]
        raise ClauseFailure(
            f"another token at position {where} of {length} hardly changes the logits of position {where}"
            f" ({probe.name})",
            "logits[:, t] predict token t + 1 and see token t; usual causes: a shift by one too many, a dead input",
        )


def require_no_leak(
    probe: Probe, row: Tensor, places: Sequence[int], training: bool, mask: Tensor | None = None
) -> Tensor:
    """Change the future from each of `places` on, all of them in one batch, and compare the past.

    Args:
        probe: the model.
        row: tokens (1, length).
        places: from 1 on.
        training: whether in training mode.
        mask: (1, length), zero at padding; None where there is none.

    Returns:
        (places,): how far the logits at each place change with the token there, in units of ten times what rounding
        may change.
    """
    length = row.shape[1]
    place, columns = torch.tensor(places).unsqueeze(1), torch.arange(length)
    base = row.expand(len(places), -1)
    real = torch.ones_like(base, dtype=torch.bool) if mask is None else mask.bool().expand(len(places), -1)
    changed = torch.where((columns >= place) & real, other_tokens(base, probe.vocabulary), base)
    masks = None if mask is None else mask.expand(len(places), -1)
    before, after = (probe.logits(tokens, masks, training) for tokens in (base, changed))
    difference = _by_position(before, after)
    past = difference.masked_fill((columns >= place) | ~real, 0.0)
    for index in (past.amax(dim=1) > probe.rounding(before)).nonzero().flatten().tolist():
        _confirm_leak(probe, row, changed[index : index + 1], places[index], training, mask)
    return difference.gather(1, place).squeeze(1) / (10 * probe.rounding(before))


def _confirm_leak(probe: Probe, base: Tensor, changed: Tensor, place: int, training: bool, mask: Tensor | None) -> None:
    """Without other rows in the batch: rows that influence each other are another clause."""
    before, after = (probe.logits(tokens, mask, training) for tokens in (base, changed))
    difference = _by_position(before, after)[0, :place]
    if mask is not None:
        difference = difference.masked_fill(~mask[0, :place].bool(), 0.0)
    if difference.max() > probe.rounding(before):
        mode = "training" if training else "evaluation"
        raise ClauseFailure(
            f"other tokens from position {place} on change the logits of position {int(difference.argmax())} by"
            f" {difference.max():.1e} (length {base.shape[1]}, {mode} mode, {probe.name}; allowed"
            f" {probe.rounding(before):.1e})",
            _LEAK,
        )


def _by_position(before: Tensor, after: Tensor) -> Tensor:
    """The largest difference of two logits at each position, (batch, length)."""
    difference = (before - after).masked_fill(before == after, 0.0).abs().amax(dim=2)
    return difference.nan_to_num(nan=float("inf"))


def require_no_length(probe: Probe, batch: int, whole_length: int, lengths: Sequence[int], seed: int) -> None:
    """Cut the future off: that there are later tokens at all must not matter either."""
    tokens = random_tokens(batch, whole_length, probe.vocabulary, seed=seed)
    whole = probe.logits(tokens)
    for length in lengths:
        difference = largest_difference(probe.logits(tokens[:, :length]), whole[:, :length])
        if difference > probe.agreement(whole):
            raise ClauseFailure(
                f"the first {length} tokens alone and the same tokens within {whole_length} give logits that differ by"
                f" {difference:.1e} ({probe.name}; allowed {probe.agreement(whole):.1e})",
                "usual causes: positions or sums divided by the length of the input, another path for short inputs",
            )


def rows_independent(subject: ModelSubject) -> None:
    """The rows of a batch do not influence each other, in evaluation or in training mode."""
    for probe in subject.probes:
        for training in (False, True):
            require_no_exchange(probe, random_tokens(3, LENGTH, VOCABULARY), training)
    on_several_draws(partial(require_no_company, subject.sharpest_probe(), LENGTH))


def require_no_exchange(probe: Probe, tokens: Tensor, training: bool, mask: Tensor | None = None) -> None:
    """Change all rows of a batch (rows, length) but the first, and compare the first."""
    first = torch.arange(len(tokens)).unsqueeze(1) == 0
    kept = first if mask is None else first | ~mask.bool()
    changed = torch.where(kept, tokens, other_tokens(tokens, probe.vocabulary))
    before, after = (probe.logits(batch, mask, training) for batch in (tokens, changed))
    real = slice(None) if mask is None else mask[0].bool()
    difference = largest_difference(before[0, real], after[0, real])
    if difference > probe.rounding(before):
        mode = "training" if training else "evaluation"
        raise ClauseFailure(
            f"other tokens in the other rows change the logits of the first row by {difference:.1e} ({mode} mode,"
            f" {probe.name}; allowed {probe.rounding(before):.1e})",
            "usual causes: statistics over the batch, a state without a batch dimension, a scale taken from the whole"
            " tensor",
        )


def require_no_company(probe: Probe, length: int, seed: int) -> None:
    """Each row of a batch of random tokens alone."""
    tokens = random_tokens(3, length, probe.vocabulary, seed=seed)
    batch = probe.logits(tokens)
    for row in range(3):
        difference = largest_difference(probe.logits(tokens[row : row + 1])[0], batch[row])
        if difference > probe.agreement(batch):
            raise ClauseFailure(
                f"row {row} of a batch of 3 and the same row alone give logits that differ by {difference:.1e}"
                f" ({probe.name}; allowed {probe.agreement(batch):.1e})",
                "usual causes: something counted or averaged over the batch, a wrong dimension in a reshape",
            )


def receptive_field(subject: ModelSubject) -> str | None:
    """Nothing outside the declared receptive field has an influence; its farthest token has one; None is unbounded.

    The attention reach lies within the receptive field.
    """
    field, reach = subject.plugin.receptive_field(subject.config), subject.plugin.attention_reach(subject.config)
    for what, value, least in (("receptive_field", field, 1), ("attention_reach", reach, 0)):
        if value is not None and (not isinstance(value, int) or value < least):
            raise ClauseFailure(f"{what}() is {value!r}, expected a number of tokens from {least} on, or None")
    if field is not None and reach is not None and reach + 1 > field:
        raise ClauseFailure(
            f"attention_reach() is {reach}, farther than the receptive field of {field} tokens (one of which is the"
            " predicting position itself)"
        )
    if field is None or field >= subject.long:
        _require_influence(subject, subject.long, "unbounded" if field is None else f"of {field:,} tokens")
        return None if field is None else f"of the {field:,} tokens declared, {subject.long} were tried"
    _require_bound(subject.sharpest_probe(), field, min(subject.long, max(LENGTH, field + 40)))
    _require_influence(subject, field, f"of {field} tokens")
    return None


def _require_bound(probe: Probe, field: int, length: int) -> None:
    """Change the past up to each place, all of them in one batch, and compare what lies beyond the field."""
    places = torch.arange(length - field).unsqueeze(1)
    base = random_tokens(1, length, VOCABULARY).expand(len(places), -1)
    changed = torch.where(torch.arange(length) <= places, other_tokens(base, VOCABULARY), base)
    before = probe.logits(base)
    difference = (before - probe.logits(changed)).abs().amax(dim=2)
    beyond = difference.masked_fill(torch.arange(length) < places + field, 0.0)
    if beyond.max() > probe.rounding(before):
        place, position = divmod(int(beyond.argmax()), length)
        raise ClauseFailure(
            f"receptive_field() is {field}, yet other tokens up to position {place} change the logits of position"
            f" {position} by {beyond.max():.1e} ({probe.name}; allowed {probe.rounding(before):.1e})",
            "a stack of L layers that each see w tokens sees L x (w - 1) + 1; a recurrence is unbounded: None",
        )


def _require_influence(subject: ModelSubject, length: int, declared: str) -> None:
    """The first of `length` tokens reaches the last one."""
    probe = subject.widest_probe()
    tokens = random_tokens(2, length, VOCABULARY)
    changed = tokens.clone()
    changed[:, 0] = other_tokens(tokens[:, 0], VOCABULARY)
    if bool((probe.logits(tokens)[:, -1] != probe.logits(changed)[:, -1]).any()):
        return
    # What a recurrence has nearly forgotten is lost in rounding, and not in the gradient.
    if not _gradient_reaches(probe, tokens):
        raise ClauseFailure(
            f"the receptive field is declared {declared}, yet the first of {length} tokens has no influence on the"
            " last prediction",
            "declare how many tokens, the current one included, can influence a prediction",
        )


def _gradient_reaches(probe: Probe, tokens: Tensor) -> bool:
    embedded: list[Tensor] = []

    def keep(module: Any, inputs: Any, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    hook = probe.model.get_input_embeddings().register_forward_hook(keep)
    with probe.precision(), torch.enable_grad():
        last = probe.model(tokens).logits[:, -1]
    hook.remove()
    if not embedded:
        return False
    (gradient,) = torch.autograd.grad((last * torch.randn_like(last)).sum(), embedded[0])
    return bool((gradient[:, 0] != 0).any())
