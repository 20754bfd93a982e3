"""A clause on `generate` of transformers: what it writes is what whole forward passes say, however it gets there."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from seqbench.testing.model.probe import Probe
from seqbench.testing.model.subject import LENGTH, VOCABULARY, ModelSubject, on_several_draws
from seqbench.testing.report import ClauseFailure
from seqbench.testing.tensors import random_tokens, scatter_rows

_WRONG = (
    "usual causes: a state that generate does not hand back (it names it past_key_values, from transformers 5.24 on"
    " cache), positions that count padding, a reorder_cache that leaves out part of the state; seqbench.nn.CausalCall"
    " brings a generate that goes by the state"
)
_BEAMS, _NEW = 3, 5


def generate(subject: ModelSubject) -> None:
    """Greedy search and beams write what forward passes over whole sequences say; padding on the left changes nothing.

    With the state and without it (use_cache=False), for rows of one length and of several. The reference feeds every
    row alone and whole, and knows no state.
    """
    probe = subject.probe()
    if not probe.model.can_generate():
        raise ClauseFailure(
            f"{type(probe.model).__name__} cannot generate: it is no GenerationMixin",
            "derive it from seqbench.nn.CausalCall, or from transformers.GenerationMixin, before PreTrainedModel",
        )
    # Ends and other settings of the model's own are no part of the question.
    probe.model.generation_config = GenerationConfig(pad_token_id=0)
    # The score of a sequence is then its log-probability, not divided by its length.
    beams = {"num_beams": _BEAMS, "length_penalty": 0.0}
    for what, lengths, options in (
        ("greedy search", (12, 12), {}),
        ("greedy search without the state (use_cache=False)", (12, 12), {"use_cache": False}),
        ("greedy search over rows of several lengths, padded on the left", (12, 7, 1), {}),
        # Across the 64 tokens at which some operations take another path.
        ("greedy search behind a longer prompt", (62,), {}),
        (f"{_BEAMS} beams", (12, 12), beams),
        (f"{_BEAMS} beams over rows of several lengths, padded on the left", (12, 5), beams),
    ):
        on_several_draws(partial(_require_right, probe, what, lengths, options))


def _require_right(probe: Probe, what: str, lengths: Sequence[int], options: dict[str, Any], seed: int) -> None:
    assert max(lengths) < LENGTH
    prompts = [random_tokens(1, length, VOCABULARY, seed=100 * seed + row + 1)[0] for row, length in enumerate(lengths)]
    width = max(lengths)
    places = [range(width - length, width) for length in lengths]
    found = _write(probe, what, *scatter_rows(prompts, places, width), options)
    for row, prompt in enumerate(prompts):
        place, written = f"{what}, row {row} of {len(lengths)} ({len(prompt)} tokens)", found.sequences[row, width:]
        if written.max() >= VOCABULARY:
            raise ClauseFailure(f"{place}: generate writes token {int(written.max())}, of a vocabulary of {VOCABULARY}")
        logits = probe.logits(torch.cat((prompt, written)).unsqueeze(0))[0, len(prompt) - 1 : -1]
        if "num_beams" in options:
            _require_best(probe, place, prompt, written, float(found.sequences_scores[row]), logits)
        else:
            _require_greedy(probe, place, written, torch.stack([step[row] for step in found.logits]), logits)


def _write(probe: Probe, what: str, tokens: Tensor, mask: Tensor, options: dict[str, Any]) -> Any:
    """What `generate` returns, with the logits or the scores of what it adds to every row: `_NEW` tokens."""
    told = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    given = {"max_new_tokens": _NEW, "do_sample": False, **told, **options}
    try:
        with torch.no_grad(), probe.precision():
            found = probe.model.generate(tokens.clone(), attention_mask=mask.clone(), **given)  # type: ignore[operator]
    # Whatever the architecture raises.
    except Exception as error:
        raise ClauseFailure(f"{what}: generate raises {type(error).__name__}: {error}", _WRONG) from error
    expected = len(tokens), tokens.shape[1] + _NEW
    if tuple(found.sequences.shape) != expected or not torch.equal(found.sequences[:, :-_NEW], tokens):
        raise ClauseFailure(
            f"{what}: generate returns sequences of shape {tuple(found.sequences.shape)}, expected the prompts and"
            f" {_NEW} more, {expected}"
        )
    return found


def _require_greedy(probe: Probe, what: str, written: Tensor, seen: Tensor, logits: Tensor) -> None:
    """Each token is a most probable one behind those before it, by logits that are those of a whole pass.

    Args:
        probe: the model.
        what: words for messages.
        written: (_NEW,), the new tokens.
        seen: (_NEW, at least vocabulary), the logits that `generate` chose by.
        logits: the same by a forward pass over the whole sequence.
    """
    difference = (seen[:, : logits.shape[1]] - logits).abs().amax(dim=1).nan_to_num(nan=float("inf"))
    wrong = (difference > probe.agreement(logits)).nonzero().flatten().tolist()
    if wrong:
        raise ClauseFailure(
            f"{what}: the logits of new token {wrong[0] + 1} differ from those of a forward pass over the whole"
            f" sequence by {difference[wrong[0]]:.1e} (allowed {probe.agreement(logits):.1e})",
            _WRONG,
        )
    behind = logits.amax(dim=1) - logits.gather(1, written.unsqueeze(1)).squeeze(1)
    if behind.max() > 2 * probe.agreement(logits):
        step = int(behind.argmax())
        raise ClauseFailure(f"{what}: new token {step + 1} is {int(written[step])}, not {int(logits[step].argmax())}")


def _require_best(probe: Probe, what: str, prompt: Tensor, written: Tensor, told: float, logits: Tensor) -> None:
    """The sequence has the log-probability that `generate` tells, and no search by whole passes finds a better one.

    Args:
        probe: the model.
        what: words for messages.
        prompt: (length,).
        written: (_NEW,), the new tokens.
        told: the log-probability that `generate` gives them.
        logits: (_NEW, vocabulary), by a forward pass over the whole sequence.
    """
    allowed = 2 * _NEW * probe.agreement(logits)
    found = float(logits.log_softmax(dim=-1).gather(1, written.unsqueeze(1)).sum())
    if not abs(told - found) <= allowed:
        raise ClauseFailure(
            f"{what}: generate gives {written.tolist()} the log-probability {told:.4f}, and a forward pass over the"
            f" whole sequence {found:.4f}",
            _WRONG,
        )
    best, score = _search(probe, prompt)
    if abs(found - score) > allowed:
        raise ClauseFailure(
            f"{what}: generate writes {written.tolist()}, of log-probability {found:.4f}, and a search by whole forward"
            f" passes finds {best.tolist()}, of {score:.4f}",
            _WRONG,
        )


def _search(probe: Probe, prompt: Tensor) -> tuple[Tensor, float]:
    """The most probable continuation of those that `_BEAMS` beams find, and its log-probability."""
    sequences, scores = prompt.unsqueeze(0), torch.zeros(1)
    for _ in range(_NEW):
        ways = scores.unsqueeze(1) + probe.logits(sequences)[:, -1].log_softmax(dim=-1)
        scores, places = ways.flatten().topk(_BEAMS)
        parents, tokens = places // ways.shape[1], places % ways.shape[1]
        sequences = torch.cat((sequences[parents], tokens.unsqueeze(1)), dim=1)
    return sequences[0, -_NEW:], float(scores[0])
