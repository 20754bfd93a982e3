"""Token sequences of any length through a model that carries its state, in bounded memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from seqbench.errors import RequestError
from seqbench.nn import evaluation_mode, state_argument, state_of

# Of 64 to 65,536 tokens, measured with small models (64 units, 4 layers) on one CPU thread: 4,096 is the fastest,
# 2,048 within a tenth of it, 256 half as fast. The memory of a step is proportional to it.
DEFAULT_CHUNK_LENGTH = 2048

_IDS, _MASK = "input_ids", "attention_mask"

# A whole sequence, or a part of one: integers of shape (batch, length).
Tokens = Tensor | np.ndarray[Any, Any]


@dataclass(frozen=True)
class StreamChunk:
    """What one step of a stream yields; nothing in it refers to earlier chunks.

    Attributes:
        start: number of tokens of this stream before the chunk.
        input_ids: (batch, length) int64, the chunk's tokens; length is `chunk_length`, less for the last one.
        attention_mask: (batch, length) of the chunk, or None.
        logits: (batch, length, vocabulary) as the model returns them; logits[:, t] predict the token after
            input_ids[:, t], so the last column belongs to the first token of the next chunk.
        state: the carried state after the chunk. The model may change it in place at the next step: copy what has to be
            kept (`copy.deepcopy`).
    """

    start: int
    input_ids: Tensor
    attention_mask: Tensor | None
    logits: Tensor
    state: Any


def stream(
    model: PreTrainedModel,
    input_ids: Tokens | Iterable[Tokens],
    attention_mask: Tokens | Iterable[Tokens] | None = None,
    *,
    chunk_length: int = DEFAULT_CHUNK_LENGTH,
    state: Any = None,
) -> Iterator[StreamChunk]:
    """Run a sequence through `model` chunk by chunk, with the state carried from each to the next.

    Memory does not grow with the length, unless the model's state does: neither the logits nor the tokens of earlier
    chunks are kept. Logits equal those of one forward pass over the whole sequence.

    Each step runs in evaluation mode and without gradients; between steps, and when the caller stops early, the model's
    training flags and the gradient mode are those of the caller. Autocast is the caller's: put the loop inside it.

    Args:
        model: any model that follows the causal-LM call of `ModelPlugin` and returns a state.
        input_ids: (batch, length) of integers, a tensor or an array; or an iterable of such parts, of any lengths, that
            are one sequence together (such as a file that is read piece by piece). Moved to the model's device chunk
            by chunk.
        attention_mask: zero for padding, for rows of different length; given in the same way as `input_ids`, though
            parts may be cut elsewhere.
        chunk_length: tokens per step, at least 1. The memory of a step is proportional to it.
        state: the state that an earlier stream ended with, to continue its sequence. The model may change it in place.

    Yields:
        `StreamChunk`s, in order.

    Raises:
        RequestError: a model that returns no state; no tokens; tokens that are no integers of shape (batch, length) or
            change their batch; a mask that has not the length of the tokens; chunk_length below 1.

    Example:
        Loss of a file of any size, summed over all bytes but the first::

            def parts(path):
                with open(path, "rb") as file:
                    while data := file.read(1 << 20):
                        yield np.frombuffer(data, np.uint8)[None]

            nats, last = 0.0, None
            for chunk in stream(model, parts("book.txt")):
                logits, targets = chunk.logits[0, :-1], chunk.input_ids[0]
                if last is None:
                    targets = targets[1:]
                else:
                    logits = torch.cat((last, logits))
                nats += F.cross_entropy(logits.float(), targets, reduction="sum").item()
                last = chunk.logits[0, -1:].clone()
    """
    if chunk_length < 1:
        raise RequestError(f"chunk_length must be at least 1, not {chunk_length}")
    tokens = _parts(input_ids, _IDS)
    masks = None if attention_mask is None else _parts(attention_mask, _MASK)
    # The checks above are made at the call; what follows runs at the first step.
    return _steps(model, tokens, masks, chunk_length, state)


def in_chunks(input_ids: Tokens | Iterable[Tokens], chunk_length: int) -> Iterator[Tensor]:
    """A sequence, whole or in parts, as int64 (batch, chunk_length), the last one shorter; errors as `stream`."""
    return _in_chunks(_parts(input_ids, _IDS), chunk_length, _IDS)


def _steps(
    model: PreTrainedModel, tokens: Iterable[Tokens], masks: Iterable[Tokens] | None, chunk_length: int, state: Any
) -> Iterator[StreamChunk]:
    start = 0
    masks_in_chunks = None if masks is None else _in_chunks(masks, chunk_length, _MASK)
    for chunk in _in_chunks(tokens, chunk_length, _IDS):
        mask = None if masks_in_chunks is None else next(masks_in_chunks, None)
        if masks_in_chunks is not None and (mask is None or mask.shape != chunk.shape):
            raise _mask_of_other_length(start)
        step = _step(model, start, chunk, mask, state)
        start, state = start + chunk.shape[1], step.state
        yield step
        # The caller alone decides how long logits live.
        del step, chunk, mask
    if start == 0:
        raise RequestError("input_ids holds no tokens; a stream needs at least one")
    if masks_in_chunks is not None and next(masks_in_chunks, None) is not None:
        raise _mask_of_other_length(start)


def _step(model: PreTrainedModel, start: int, input_ids: Tensor, mask: Tensor | None, state: Any) -> StreamChunk:
    input_ids = input_ids.to(model.device)
    mask = None if mask is None else mask.to(model.device)
    with torch.no_grad(), evaluation_mode(model):
        output = model(input_ids, attention_mask=mask, use_cache=True, **{state_argument(model): state})
    after = state_of(output)
    if after is None:
        raise RequestError(
            f"{type(model).__name__} returned no past_key_values, so nothing carries a sequence from one chunk to the"
            " next and it cannot be streamed; give it whole sequences"
        )
    return StreamChunk(start, input_ids, mask, output.logits, after)


def _parts(tokens: Tokens | Iterable[Tokens], name: str) -> Iterable[Tokens]:
    """The parts of a sequence; a sequence given whole is checked at once."""
    if isinstance(tokens, Tensor | np.ndarray):
        _check(tokens, name)
        if tokens.shape[1] == 0:
            raise RequestError(f"{name} holds no tokens; a stream needs at least one")
        return (tokens,)
    if not isinstance(tokens, Iterable):
        raise RequestError(f"{name} must be a tensor, an array or an iterable of them, not {type(tokens).__name__}")
    return tokens


def _in_chunks(parts: Iterable[Tokens], chunk_length: int, name: str) -> Iterator[Tensor]:
    """The same sequence in chunks of int64 (batch, chunk_length), the last one shorter."""
    waiting: list[Tensor] = []
    missing, batch = chunk_length, None
    for part in parts:
        _check(part, name)
        batch = part.shape[0] if batch is None else batch
        if part.shape[0] != batch:
            raise RequestError(f"{name}: a part has {part.shape[0]} rows after parts of {batch}")
        taken = 0
        while part.shape[1] - taken >= missing:
            waiting.append(_as_tensor(part[:, taken : taken + missing]))
            taken += missing
            yield _joined(waiting)
            waiting, missing = [], chunk_length
        if taken < part.shape[1]:
            # A copy: a view would keep the whole part in memory while the next one is read.
            waiting.append(_as_tensor(part[:, taken:]).clone())
            missing -= part.shape[1] - taken
        del part
    if waiting:
        yield _joined(waiting)


def _joined(pieces: list[Tensor]) -> Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)


def _as_tensor(part: Tokens) -> Tensor:
    if isinstance(part, Tensor):
        return part.to(torch.int64)
    return torch.from_numpy(part.astype(np.int64))


def _check(part: Any, name: str) -> None:
    if not isinstance(part, Tensor | np.ndarray):
        raise RequestError(f"{name} must be made of tensors or arrays, not of {type(part).__name__}")
    if part.ndim != 2:
        raise RequestError(
            f"{name} must have the shape (batch, length), not {tuple(part.shape)}; one sequence is tokens[None]"
        )
    if part.shape[0] == 0:
        raise RequestError(f"{name} of shape {tuple(part.shape)} has no rows")
    if isinstance(part, Tensor):
        numbers = not (part.is_floating_point() or part.is_complex() or part.dtype == torch.bool)
        truth = part.dtype == torch.bool
    else:
        numbers, truth = part.dtype.kind in "iu", part.dtype.kind == "b"
    if not (numbers or (truth and name == _MASK)):
        raise RequestError(f"{name} must be integers, not {part.dtype}")


def _mask_of_other_length(start: int) -> RequestError:
    return RequestError(f"attention_mask and input_ids differ in shape in the chunk that starts at token {start}")
