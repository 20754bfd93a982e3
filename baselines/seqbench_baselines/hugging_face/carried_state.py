"""The tensors inside a cache of transformers, whatever its class."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from seqbench.nn import STATE_NAMES

# A model of transformers hands its state out, and takes it back, under one of these names.
NATIVE_NAMES = (*STATE_NAMES, "cache_params", "state")


def state_of(output: Any) -> tuple[str, Any] | None:
    """Name and value of the carried state in a model's output, or None when there is none."""
    # As it is kept there: transformers warns of the name that a release does not use.
    kept = vars(output)
    return next(((name, kept[name]) for name in NATIVE_NAMES if kept.get(name) is not None), None)


def state_size(state: Any) -> int:
    """Bytes of all tensors in a carried state."""
    return sum(tensor.numel() * tensor.element_size() for _, _, tensor in _tensors(state))


def detach_state(state: Any) -> None:
    """Cut the state off the graph: no gradient flows from one call into the next."""
    for container, key, tensor in list(_tensors(state)):
        if tensor.requires_grad:
            container[key] = tensor.detach()


def attends_to_everything(state: Any) -> bool:
    """Whether the state is made of the keys and values of all tokens, where a mask can leave tokens out."""
    # Subclasses of either keep other things besides.
    return type(state) is DynamicCache and all(type(layer) is DynamicLayer for layer in state.layers)


def _tensors(container: Any) -> Iterator[tuple[Any, Any, Tensor]]:
    """(container, key, tensor) of every tensor in nested lists, dictionaries and attributes."""
    if isinstance(container, list):
        entries: Any = enumerate(container)
    elif isinstance(container, dict):
        entries = container.items()
    elif hasattr(container, "__dict__"):
        container = vars(container)
        entries = container.items()
    else:
        return
    for key, value in entries:
        if isinstance(value, Tensor):
            yield container, key, value
        elif isinstance(value, list | dict) or type(value).__module__.startswith("transformers."):
            yield from _tensors(value)
