"""What the tests of models and kernels share: inputs, feeding in chunks, and measures of difference.

What the contract's checks use too is theirs, and is passed on here.
"""

import math

import torch
from torch import Tensor, nn

from seqbench.testing.model.liveliness import enliven
from seqbench.testing.tensors import (
    bytes_in,
    chunk_sizes,
    feed,
    largest_difference,
    pad_rows,
    random_tokens,
    tensors_in,
)

__all__ = [
    "bytes_in",
    "chunk_sizes",
    "circular_difference",
    "enliven",
    "feed",
    "largest_difference",
    "normal",
    "pad_rows",
    "random_tokens",
    "relative_difference",
    "stored_bytes",
    "tensors_in",
    "training_gradients",
]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest entry of `expected`."""
    return largest_difference(actual, expected) / max(expected.abs().max().item(), 1e-30)


def circular_difference(actual: Tensor, expected: Tensor) -> float:
    """The largest distance between two sets of angles on the circle, in radians."""
    assert actual.shape == expected.shape
    difference = (actual.double() - expected.double()).abs() % (2 * math.pi)
    return torch.minimum(difference, 2 * math.pi - difference).max().item()


def training_gradients(model: nn.Module, tokens: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
    """Gradients of the model's own next-token loss in training mode, by parameter; each parameter must have one.

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


def stored_bytes(model: nn.Module, tokens: Tensor) -> int:
    """What one forward pass in training keeps for its backward pass, the weights aside."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    stored: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            stored[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model.train()(tokens, labels=tokens).loss
    del loss
    return sum(stored.values())
