"""What the tests of models and kernels share: inputs, feeding in chunks, and measures of difference."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def random_tokens(batch: int, length: int, vocab_size: int, seed: int = 1) -> Tensor:
    return torch.randint(0, vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def largest_difference(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return (actual.double() - expected.double()).abs().max().item() if actual.numel() else 0.0


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest entry of `expected`."""
    return largest_difference(actual, expected) / max(expected.abs().max().item(), 1e-30)


def circular_difference(actual: Tensor, expected: Tensor) -> float:
    """The largest distance between two sets of angles on the circle, in radians."""
    assert actual.shape == expected.shape
    difference = (actual.double() - expected.double()).abs() % (2 * math.pi)
    return torch.minimum(difference, 2 * math.pi - difference).max().item()


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
    parts = []
    for chunk in tokens.split(list(sizes), dim=1):
        output = model(chunk, past_key_values=state, use_cache=True)
        state = output.past_key_values
        parts.append(output.logits)
    return torch.cat(parts, dim=1), state


def pad_rows(rows: Sequence[Tensor], fronts: Sequence[int], width: int, pad: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of different length in one batch, `fronts[b]` padding places before row b and the rest behind it.

    Returns tokens and attention mask, both (batch, width).
    """
    tokens = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.int64)
    for index, (row, front) in enumerate(zip(rows, fronts, strict=True)):
        tokens[index, front : front + len(row)] = row
        mask[index, front : front + len(row)] = 1
    return tokens, mask


def tensors_in(container: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples, dictionaries and objects."""
    if isinstance(container, Tensor):
        yield container
    elif isinstance(container, dict):
        for value in container.values():
            yield from tensors_in(value)
    elif isinstance(container, list | tuple):
        for value in container:
            yield from tensors_in(value)
    elif dataclasses.is_dataclass(container) or type(container).__module__.startswith("transformers."):
        yield from tensors_in(vars(container))


def bytes_in(container: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(container))


@torch.no_grad()
def enliven(model: nn.Module, factor: float) -> nn.Module:
    """Enlarge the linear maps of a fresh model, so that a token matters to the logits by far more than rounding."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.mul_(factor)
    return model


def training_gradients(model: nn.Module, tokens: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
    """Gradients of the next-token loss in training mode, by parameter; each parameter must have one.

    Padding neither is predicted nor predicts: the first token of a row has no loss wherever it stands.
    """
    model.train()
    model.zero_grad()
    labels = tokens
    if mask is not None:
        labels = tokens.masked_fill((mask == 0) | (mask.roll(1, dims=1) == 0), -100)
    model(tokens, attention_mask=mask, labels=labels).loss.backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        gradients[name] = parameter.grad.clone()
    return gradients
