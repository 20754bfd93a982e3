"""Whether transformers' own `generate` goes by the model that it is given; for some architectures it does not."""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from seqbench.errors import first_line

_LENGTHS, _NEW = (8, 5, 1), 3


@torch.no_grad()
def generation_fault(model: Any) -> str | None:
    """What is wrong with greedy search or beams over rows padded on the left; None for nothing.

    The model, in evaluation mode, is given another generation config.
    """
    model.generation_config = GenerationConfig(pad_token_id=0)
    width, vocab_size = max(_LENGTHS), model.harness_vocab_size
    rows = [torch.arange(row + 1, row + 1 + length).remainder(vocab_size) for row, length in enumerate(_LENGTHS)]
    tokens, mask = torch.zeros(2, len(rows), width, dtype=torch.int64)
    for row, prompt in enumerate(rows):
        tokens[row, width - len(prompt) :], mask[row, width - len(prompt) :] = prompt, 1
    told = {"return_dict_in_generate": True, "output_logits": True, "output_scores": True}
    for options in ({}, {"num_beams": 2, "length_penalty": 0.0}):
        how = "2 beams" if options else "greedy search"
        try:
            found = model.generate(tokens, attention_mask=mask, max_new_tokens=_NEW, do_sample=False, **told, **options)
        # Whatever the architecture raises.
        except Exception as error:
            return f"generate of transformers fails with {how}: {type(error).__name__}: {first_line(error)}"
        for row, prompt in enumerate(rows):
            written = found.sequences[row, width:]
            logits = model(torch.cat((prompt, written)).unsqueeze(0)).logits[0, len(prompt) - 1 : -1]
            if not _agree(found, row, written, logits):
                return f"generate of transformers, with {how} over padded rows, is not what whole forward passes say"
    return None


def _agree(found: Any, row: int, written: Tensor, logits: Tensor) -> bool:
    """Whether the logits, or the score, that `generate` went by are those of a whole forward pass, to 1e-5."""
    allowed = 1e-5 * max(1.0, float(logits.abs().max()))
    if found.get("sequences_scores") is None:
        seen = torch.stack([step[row] for step in found.logits])[:, : logits.shape[1]]
        return bool((seen - logits).abs().max() <= allowed)
    score = logits.log_softmax(dim=-1).gather(1, written.unsqueeze(1)).sum()
    return bool((found.sequences_scores[row] - score).abs() <= _NEW * allowed)
