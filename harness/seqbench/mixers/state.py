"""What the layers of a mixer decoder carry from one call to the next: any tree of tensors with the batch first."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from seqbench.nn import CarriedState

# A tensor with the rows of the batch first, None, or a tuple, list or dict of such trees.
Tree = Any


def map_tensors(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """The tree with `function` of every tensor in it.

    Raises TypeError for anything that is neither a tensor, None, a tuple, a list nor a dict.
    """
    if tree is None:
        return None
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: map_tensors(function, value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_tensors(function, value) for value in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(map_tensors(function, value) for value in tree)
    raise TypeError(
        f"a mixer's state holds a {type(tree).__name__}; it is made of tensors with the batch first, None, tuples,"
        " lists and dicts"
    )


def tensors(tree: Tree) -> list[Tensor]:
    """Every tensor in the tree, in order."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(note, tree)
    return found


@dataclass
class MixerState(CarriedState):
    """The trees of all layers.

    Attributes:
        layers: what each layer carries; empty before the first chunk.
        seen: (batch,) int64, number of real tokens so far; None before the first chunk.
    """

    layers: list[Tree] = field(default_factory=list)
    seen: Tensor | None = None

    def reorder_cache(self, beam_index: Tensor) -> None:
        """Keep the rows `beam_index`, in that order (beam search)."""
        self.layers = [map_tensors(lambda tensor: tensor.index_select(0, beam_index), tree) for tree in self.layers]
        if self.seen is not None:
            self.seen = self.seen.index_select(0, beam_index)

    def open(self, depth: int) -> list[Tree]:
        """What each of `depth` layers begins the next chunk with; None before the first one."""
        return self.layers or [None] * depth

    def store(self, layers: list[Tree], added: Tensor) -> None:
        """Take what the layers carry, as `owned` made it, after a chunk of `added` (batch,) real tokens a row."""
        self.layers = layers
        self.seen = added if self.seen is None else self.seen + added


def owned(tree: Tree) -> Tree:
    """The tree in memory of its own, without gradients.

    Gradients are never carried from one call into the next (truncated backpropagation through time), and a part of a
    larger tensor is copied, which would otherwise stay in memory whole.
    """
    return map_tensors(_own, tree)


def _own(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    if torch.compiler.is_compiling():
        return tensor.clone()
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole and tensor.is_contiguous() else tensor.clone(memory_format=torch.contiguous_format)
