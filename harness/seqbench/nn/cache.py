"""Carried state of attention layers: the last keys and values, with their validity.

Cached tokens are kept right-aligned: the newest real token of a row is always in the last place, so that distances in
the cache are distances in real tokens whatever padding a chunk had. Only steps of one token (decoding.py) leave them
turned: they write over the oldest place instead of moving all others, and the next chunk turns the cache back.
"""

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from seqbench.nn.padding import RowPacking
from seqbench.nn.state import CarriedState


class KeyValueRing(CarriedState):
    """What steps of one token (decoding.py) ask of a state, and change in place: windows of keys and values.

    Attributes:
        window: attention window in tokens (self included); None keeps every token.
        valid: (batch, kept tokens) bool, which places hold a token; None until the first chunk is stored.
        oldest: the place of the oldest token; not the first one only after steps of one token.
    """

    window: int | None
    valid: Tensor | None
    oldest: int

    @property
    def kept(self) -> int:
        """Number of places held per layer."""
        return 0 if self.valid is None else self.valid.shape[1]

    @abstractmethod
    def held(self, layer_index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, (batch, key/value heads, kept tokens, head_dim) each."""

    def write_oldest(self, layer_index: int, key: Tensor, value: Tensor) -> None:
        """Put a row's newest key and value, (batch, key/value heads, head_dim), in place of its oldest."""
        keys, values = self.held(layer_index)
        keys[:, :, self.oldest] = key
        values[:, :, self.oldest] = value

    def advance_one(self) -> None:
        """Record that every layer has written one token by `write_oldest`."""
        assert self.valid is not None and self.seen is not None
        self.valid[:, self.oldest] = True
        self.oldest = (self.oldest + 1) % self.kept
        self.seen.add_(1)


@dataclass
class AttentionCache(KeyValueRing):
    """Keys and values of all layers of a decoder.

    Attributes:
        window: attention window in tokens (self included); None keeps every token.
        keys, values: per layer (batch, key/value heads, kept tokens, head_dim), keys after the rotary encoding.
        valid: (batch, kept tokens) bool; None until the first chunk is stored.
        seen: (batch,) int64, number of real tokens so far; the position of the next one.
        ragged: whether some row may hold fewer real tokens than the cache has places.
        oldest: the place of the oldest token; not the first one only after steps of one token.
    """

    window: int | None
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    valid: Tensor | None = None
    seen: Tensor | None = None
    ragged: bool = False
    oldest: int = 0

    def held(self, layer_index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer."""
        return self.keys[layer_index], self.values[layer_index]

    def reorder_cache(self, beam_index: Tensor) -> None:
        """Keep the rows `beam_index`, in that order (beam search)."""
        self.keys = [keys.index_select(0, beam_index) for keys in self.keys]
        self.values = [values.index_select(0, beam_index) for values in self.values]
        if self.valid is not None:
            self.valid = self.valid.index_select(0, beam_index)
        if self.seen is not None:
            self.seen = self.seen.index_select(0, beam_index)

    def align(self) -> None:
        """Turn the places back so that the newest token is in the last one."""
        if self.oldest == 0:
            return
        self.keys = [keys.roll(-self.oldest, dims=2) for keys in self.keys]
        self.values = [values.roll(-self.oldest, dims=2) for values in self.values]
        if self.valid is not None:
            self.valid = self.valid.roll(-self.oldest, dims=1)
        self.oldest = 0


@dataclass(frozen=True)
class ChunkPlan:
    """How one chunk of tokens meets the cache; computed once per call and shared by all layers.

    Attributes:
        positions: (batch or 1, length) int64 positions of the chunk's tokens.
        prefix_valid: (batch, kept tokens) bool when some cached place must be masked, else None.
        keep_index: (batch, places) int64 into cached + new tokens: what the cache holds afterwards; None when a
            slice of the newest `places` does.
        places: number of places of the cache afterwards.
        lengths: (batch,) real tokens of the chunk, or None when nothing is padded.
        implementation: how attention is computed: "sdpa", "eager" or "flash_attention_2".
    """

    positions: Tensor
    prefix_valid: Tensor | None
    keep_index: Tensor | None
    places: int
    lengths: Tensor | None
    implementation: str = "sdpa"


def plan_chunk(
    cache: AttentionCache | None,
    batch: int,
    length: int,
    packing: RowPacking | None,
    device: torch.device,
    implementation: str = "sdpa",
) -> ChunkPlan:
    """Work out positions and masks of a chunk of `length` tokens (packed to the front of each row).

    `implementation` is how its attention is to be computed, as config._attn_implementation of transformers names it.
    """
    steps = torch.arange(length, device=device)
    if cache is None:
        lengths = None if packing is None else packing.lengths
        return ChunkPlan(steps.unsqueeze(0), None, None, 0, lengths, implementation)
    cache.align()
    kept = cache.kept
    seen = steps.new_zeros(batch) if cache.seen is None else cache.seen
    positions = seen.unsqueeze(1) + steps
    places = kept + length if cache.window is None else cache.window - 1
    lengths = None if packing is None else packing.lengths
    prefix_valid = cache.valid if cache.ragged else None
    if lengths is None and kept + length >= places:
        return ChunkPlan(positions, prefix_valid, None, places, None, implementation)
    ends = kept + (torch.full_like(seen, length) if lengths is None else lengths)
    keep_index = ends.unsqueeze(1) - places + torch.arange(places, device=device)
    return ChunkPlan(positions, prefix_valid, keep_index, places, lengths, implementation)


def store_chunk(cache: AttentionCache, plan: ChunkPlan, layer_index: int, keys: Tensor, values: Tensor) -> None:
    """Keep the newest keys and values of a layer; keys, values: (batch, heads, cached + new tokens, head_dim)."""
    kept_keys, kept_values = (_keep(tensor, plan) for tensor in (keys, values))
    if layer_index < len(cache.keys):
        cache.keys[layer_index], cache.values[layer_index] = kept_keys, kept_values
    else:
        cache.keys.append(kept_keys)
        cache.values.append(kept_values)


def advance(cache: AttentionCache, plan: ChunkPlan, batch: int, length: int) -> None:
    """Record that the chunk has been stored by every layer."""
    device = plan.positions.device
    added = torch.full((batch,), length, device=device) if plan.lengths is None else plan.lengths
    old_valid = torch.ones(batch, cache.kept, dtype=torch.bool, device=device) if cache.valid is None else cache.valid
    new_valid = torch.arange(length, device=device) < added.unsqueeze(1)
    valid = torch.cat((old_valid, new_valid), dim=1)
    if plan.keep_index is None:
        cache.valid = valid[:, valid.shape[1] - plan.places :]
    else:
        cache.valid = valid.gather(1, plan.keep_index.clamp(min=0)) & (plan.keep_index >= 0)
    cache.seen = added.clone() if cache.seen is None else cache.seen + added
    cache.ragged = not bool(cache.valid.all())


def _keep(tensor: Tensor, plan: ChunkPlan) -> Tensor:
    # A cache never carries gradients from one call into the next (truncated backpropagation through time).
    tensor = tensor.detach()
    if plan.keep_index is None:
        kept = tensor[:, :, tensor.shape[2] - plan.places :]
        # A part is copied in any case: of one row with one head it would be a view that keeps the whole chunk alive.
        return kept.contiguous() if kept.shape == tensor.shape else kept.clone(memory_format=torch.contiguous_format)
    index = plan.keep_index.clamp(min=0)[:, None, :, None].expand(-1, tensor.shape[1], -1, tensor.shape[3])
    return tensor.gather(2, index)
