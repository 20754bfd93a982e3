"""Inputs for models, feeding in chunks, what a state holds, and measures of difference."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqbench.contracts import IGNORED_LABEL
from seqbench.nn import state_argument, state_of


def random_tokens(batch: int, length: int, vocab_size: int, seed: int = 1) -> Tensor:
    """Uniform token ids (batch, length) int64; the same for the same arguments."""
    return torch.randint(0, vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


def other_tokens(tokens: Tensor, vocab_size: int, seed: int = 2) -> Tensor:
    """Token ids of the same shape that differ from `tokens` at every place."""
    shift = torch.randint(1, vocab_size, tokens.shape, generator=torch.Generator().manual_seed(seed))
    return (tokens + shift) % vocab_size


def largest_difference(actual: Tensor, expected: Tensor) -> float:
    """The largest absolute difference of two tensors of one shape; infinite where either holds a NaN."""
    assert actual.shape == expected.shape, f"shapes {tuple(actual.shape)} and {tuple(expected.shape)} differ"
    if not actual.numel():
        return 0.0
    # Equal infinities differ by nothing, not by NaN.
    difference = (actual.double() - expected.double()).masked_fill(actual == expected, 0.0).abs()
    return difference.nan_to_num(nan=float("inf")).max().item()


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors hold the same numbers; a NaN is the same as another."""
    if first.shape != second.shape:
        return False
    return bool(((first == second) | ((first != first) & (second != second))).all())


def chunk_sizes(length: int, sizes: Iterable[int]) -> list[int]:
    """`sizes` as far as they fit, then one chunk of what is left of `length`."""
    chosen: list[int] = []
    for size in sizes:
        if sum(chosen) + size > length:
            break
        chosen.append(size)
    rest = length - sum(chosen)
    return [*chosen, rest] if rest else chosen


@torch.no_grad()
def feed(model: nn.Module, tokens: Tensor, sizes: Sequence[int], state: Any = None) -> tuple[Tensor, Any]:
    """Logits of all tokens and the state after them, fed in chunks that carry the state."""
    assert sum(sizes) == tokens.shape[1]
    parts, argument = [], state_argument(model)
    for chunk in tokens.split(list(sizes), dim=1):
        output = model(chunk.clone(), use_cache=True, **{argument: state})
        state = state_of(output)
        parts.append(output.logits)
    return torch.cat(parts, dim=1), state


def pad_rows(rows: Sequence[Tensor], fronts: Sequence[int], width: int, pad: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of different length in one batch, `fronts[b]` padding places before row b and the rest behind it.

    Returns tokens and attention mask, both (batch, width).
    """
    places = [range(front, front + len(row)) for row, front in zip(rows, fronts, strict=True)]
    return scatter_rows(rows, places, width, pad)


def scatter_rows(
    rows: Sequence[Tensor], places: Sequence[Sequence[int]], width: int, pad: int = 0
) -> tuple[Tensor, Tensor]:
    """Rows in one batch with the tokens of row b at the columns `places[b]`, and padding everywhere else.

    Returns tokens and attention mask, both (batch, width).
    """
    tokens = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.int64)
    for index, (row, columns) in enumerate(zip(rows, places, strict=True)):
        tokens[index, list(columns)] = row
        mask[index, list(columns)] = 1
    return tokens, mask


def tensors_in(container: Any) -> Iterator[Tensor]:
    """Every tensor in nested lists, tuples, sets, dictionaries and objects, each once; arrays of NumPy as tensors."""
    yield from _tensors_in(container, set())


def bytes_in(container: Any) -> int:
    """Bytes of all tensors in nested containers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(container))


def storage_bytes_in(container: Any) -> int:
    """Bytes that the tensors keep alive: a view counts with all that it is a view of, each storage once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors_in(container)}
    return sum(storage.nbytes() for storage in storages.values())


def next_token_loss(model: nn.Module, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean loss of predicting each real token of a row from the real ones before it; there must be two in some row.

    Padding neither is predicted nor predicts.
    """
    logits = model(tokens, attention_mask=mask).logits
    return F.cross_entropy(logits.flatten(0, 1), _next_tokens(tokens, mask).flatten(), ignore_index=IGNORED_LABEL)


def gradients_of(model: nn.Module, loss: Tensor) -> dict[str, Tensor | None]:
    """Gradients of `loss` by parameter name, None for a parameter that takes no part in it."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return dict(zip(named, gradients, strict=True))


def _next_tokens(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """The label at each place: the next real token of the row, IGNORED_LABEL at padding and at the last real token."""
    labels = torch.full_like(tokens, IGNORED_LABEL)
    for row in range(tokens.shape[0]):
        places = range(tokens.shape[1]) if mask is None else mask[row].nonzero().flatten().tolist()
        labels[row, list(places)[:-1]] = tokens[row, list(places)[1:]]
    return labels


def _tensors_in(container: Any, seen: set[int]) -> Iterator[Tensor]:
    if (
        container is None
        or isinstance(container, str | bytes | int | float | type | nn.Module)
        or id(container) in seen
    ):
        return
    seen.add(id(container))
    if isinstance(container, Tensor):
        yield container
    elif isinstance(container, np.ndarray):
        yield torch.from_numpy(container)
    else:
        for value in _parts(container):
            yield from _tensors_in(value, seen)


def _parts(container: Any) -> list[Any]:
    if isinstance(container, Mapping):
        return list(container.values())
    if isinstance(container, list | tuple | set | frozenset):
        return list(container)
    slots = [slot for kind in type(container).__mro__ for slot in getattr(kind, "__slots__", ())]
    return [*getattr(container, "__dict__", {}).values(), *(getattr(container, slot, None) for slot in slots)]
