"""One token at a time into buffers that are taken once: what models with a window share for generating.

A step of an ordinary forward call takes new memory for every intermediate result and copies the whole window to move it
by one place. Here every result has its buffer, kept from step to step, and a new key overwrites the oldest. Addresses
stay the same and nothing is asked of the device, so a step costs the same at any position.

Inference only: no gradients, no autocast, no hooks, the weights of plain linear maps, and no path asked for of the
operations whose work a step does by itself. A model asks `DecodingSteps.take` for a step and runs its ordinary forward
call where none fits; a test of each model compares the two.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqbench.nn.attention import AttentionParts
from seqbench.nn.cache import KeyValueRing
from seqbench.nn.layers import RMSNorm, SwiGLU
from seqbench.plugins.kernels import DECODING_STEP, find_operation


class Workspace:
    """Buffers by name, taken when they are first asked for."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self._buffers: dict[str, Tensor] = {}

    def buffer(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """The buffer `name`, with what the last step left in it; one name has one shape and dtype."""
        found = self._buffers.get(name)
        if found is None:
            # A tensor made in inference mode could not be written outside it.
            with torch.inference_mode(False):
                found = self._buffers[name] = torch.empty(shape, dtype=dtype or self.dtype, device=self.device)
        return found

    def cast(self, name: str, values: Tensor, dtype: torch.dtype) -> Tensor:
        """`values` in `dtype`: themselves, or a copy in the buffer `name`."""
        if values.dtype == dtype:
            return values
        return self.buffer(name, *values.shape, dtype=dtype).copy_(values)

    def project(self, name: str, linear: nn.Linear, inputs: Tensor) -> Tensor:
        """linear(inputs), (rows, outputs), in the workspace's dtype; inputs: (rows, inputs) of any dtype."""
        inputs = self.cast(name + " input", inputs, self.dtype)
        out = self.buffer(name, inputs.shape[0], linear.weight.shape[0])
        if linear.bias is None:
            return torch.mm(inputs, linear.weight.t(), out=out)
        return torch.addmm(linear.bias, inputs, linear.weight.t(), out=out)

    def normalise(self, name: str, norm: RMSNorm, values: Tensor) -> Tensor:
        """norm(values), (..., size), computed in fp32, in the dtype of `values`."""
        wide = self.cast(name + " wide", values, torch.float32)
        squares = self.buffer(name + " squares", *values.shape, dtype=torch.float32)
        scale = self.buffer(name + " scale", *values.shape[:-1], 1, dtype=torch.float32)
        torch.mean(torch.mul(wide, wide, out=squares), dim=-1, keepdim=True, out=scale)
        scale.add_(norm.epsilon).rsqrt_()
        weight = self.cast(name + " weight", norm.weight, torch.float32)
        normalised = torch.mul(wide, scale, out=squares).mul_(weight)
        return self.cast(name, normalised, values.dtype)


class DecodingSteps:
    """The parts of a step that every decoder of the kit has.

    Args:
        backbone: module with `config`, `embed_tokens`, `layers` and `norm`; a layer has `self_attn`, `mlp` and their
            norms.
        head_dim, theta: of the rotary encoding.
        operations: announced operations whose work a step does by itself.
    """

    # Modules with weights of their own that a step knows how to apply; others may do more with them (adapters).
    known: tuple[type[nn.Module], ...] = (nn.Linear, nn.Embedding, RMSNorm)

    def __init__(
        self,
        backbone: nn.Module,
        head_dim: int,
        theta: float,
        operations: Sequence[str] = ("sliding_window_attention",),
    ) -> None:
        self._operations = operations
        self._places = [
            (parent, name, child) for parent in backbone.modules() for name, child in parent.named_children()
        ]
        self._all_known = all(type(child) in self.known for _, _, child in self._places if child._parameters)
        self._head_dim, self._theta = head_dim, theta
        self._workspace: Workspace | None = None
        self._rows = 0

    def fits(self, backbone: Any, tokens: Tensor, cache: KeyValueRing | None) -> bool:
        """Whether a call may be answered by a step: it has one token a row, needs no gradient, and the cache is full.

        Full of places, that is: some may hold no token yet. Whoever asked for a path of an operation, or for an
        implementation of attention other than the default, gets what was asked for and no step.
        """
        if tokens.shape[1] != 1 or cache is None or cache.window is None or torch.is_grad_enabled():
            return False
        if backbone.training or torch.is_autocast_enabled(tokens.device.type) or torch.compiler.is_compiling():
            return False
        if cache.valid is None or cache.window < 2 or cache.kept != cache.window - 1:
            return False
        if backbone.config._attn_implementation != "sdpa" or any(map(_is_requested, self._operations)):
            return False
        weight = cast(nn.Embedding, backbone.embed_tokens).weight
        kept, _ = cache.held(0)
        if kept.dtype != weight.dtype or kept.device != weight.device or not self._all_known:
            return False
        if kept.is_inference() and not torch.is_inference_mode_enabled():
            return False
        return all(parent._modules[name] is child and _is_plain(child) for parent, name, child in self._places)

    def take(self, backbone: nn.Module, tokens: Tensor, cache: Any) -> Tensor | None:
        """The result of `run`, or None where a step does not fit and nothing was done; cache: a cache or None."""
        return self.run(backbone, tokens, cache) if self.fits(backbone, tokens, cache) else None

    def run(self, backbone: Any, tokens: Tensor, cache: Any) -> Tensor:
        """Normalised hidden states (rows, 1, hidden_size) of one token a row, (rows, 1) int64; the cache moves on."""
        work, hidden = self.start(backbone, tokens, cache)
        for index, layer in enumerate(backbone.layers):
            self.attend(work, layer, index, cache, hidden)
            self.feed_forward(work, layer, hidden)
        return self.finish(work, backbone, cache, hidden)

    def start(self, backbone: nn.Module, tokens: Tensor, cache: KeyValueRing) -> tuple[Workspace, Tensor]:
        """The workspace, and the embedded tokens, (rows, hidden_size): the buffer that the layers add to."""
        weight = cast(nn.Embedding, backbone.embed_tokens).weight
        work = self._workspace
        if work is None or self._rows != len(tokens) or (work.device, work.dtype) != (weight.device, weight.dtype):
            work = self._workspace = Workspace(weight.device, weight.dtype)
            self._rows = len(tokens)
            # Here and not before: a model may be made on one device and filled on another.
            exponents = torch.arange(0, self._head_dim, 2, dtype=torch.float64, device=weight.device) / self._head_dim
            self._frequencies = self._theta**-exponents
        assert cache.seen is not None and cache.valid is not None
        hidden = work.buffer("hidden", len(tokens), weight.shape[1])
        torch.index_select(weight, 0, tokens.view(-1), out=hidden)
        self._rotary(work, cache.seen)
        unseen = work.buffer("unseen", *cache.valid.shape, dtype=torch.bool)
        torch.logical_not(cache.valid, out=unseen)
        return work, hidden

    def attend(self, work: Workspace, layer: Any, index: int, cache: KeyValueRing, hidden: Tensor) -> None:
        """Add the attention of layer `index` to `hidden` (rows, hidden_size), and write its key and value."""
        attention = cast(AttentionParts, layer.self_attn)
        size, rows = self._head_dim, len(hidden)
        normalised = work.normalise("attention norm", layer.input_layernorm, hidden)
        query = work.project("query", attention.q_proj, normalised).view(rows, -1, size)
        key = work.project("key", attention.k_proj, normalised).view(rows, -1, size)
        value = work.project("value", attention.v_proj, normalised).view(rows, -1, size)
        query = self._rotate(work, "query", work.normalise("query norm", attention.q_norm, query))
        key = self._rotate(work, "key", work.normalise("key norm", attention.k_norm, key))
        mixed = _mix_window(work, query, key, value, *cache.held(index))
        hidden.add_(work.project("attention out", attention.o_proj, mixed.view(rows, -1)))
        cache.write_oldest(index, key, value)

    def feed_forward(self, work: Workspace, layer: Any, hidden: Tensor) -> None:
        """Add the feed-forward part of a layer to `hidden`."""
        feed_forward = cast(SwiGLU, layer.mlp)
        normalised = work.normalise("feed-forward norm", layer.post_attention_layernorm, hidden)
        gate = F.silu(work.project("gate", feed_forward.gate_proj, normalised), inplace=True)
        gate.mul_(work.project("up", feed_forward.up_proj, normalised))
        hidden.add_(work.project("down", feed_forward.down_proj, gate))

    def finish(self, work: Workspace, backbone: Any, cache: KeyValueRing, hidden: Tensor) -> Tensor:
        """The normalised hidden states, (rows, 1, hidden_size), a tensor of its own; the cache has moved on."""
        cache.advance_one()
        for name in self._operations:
            find_operation(name).taken.add(DECODING_STEP)
        return work.normalise("final norm", backbone.norm, hidden).clone().unsqueeze(1)

    def _rotary(self, work: Workspace, positions: Tensor) -> None:
        """Cosines and sines of the rows' positions, in fp64 until they are formed (see rotary.py)."""
        rows, half = len(positions), len(self._frequencies)
        places = work.cast("positions", positions, torch.float64)
        angles = work.buffer("rotary angles", rows, half, dtype=torch.float64)
        torch.mul(places.unsqueeze(1), self._frequencies, out=angles)
        parts = work.buffer("rotary parts", 2, rows, half, dtype=torch.float64)
        torch.cos(angles, out=parts[0])
        torch.sin(angles, out=parts[1])
        work.buffer("rotary", 2, rows, half, dtype=torch.float32).copy_(parts)

    def _rotate(self, work: Workspace, name: str, heads: Tensor) -> Tensor:
        """Heads (rows, heads, head_dim) turned by their row's position."""
        rows, half = len(heads), self._head_dim // 2
        cosines, sines = work.buffer("rotary", 2, rows, half, dtype=torch.float32).unsqueeze(2).unbind(0)
        wide = work.cast(name + " to rotate", heads, torch.float32)
        turned = work.buffer(name + " turned", *heads.shape, dtype=torch.float32)
        first, second = wide[..., :half], wide[..., half:]
        torch.mul(first, cosines, out=turned[..., :half]).addcmul_(second, sines, value=-1)
        torch.mul(second, cosines, out=turned[..., half:]).addcmul_(first, sines)
        return work.cast(name + " rotated", turned, heads.dtype)


def _mix_window(work: Workspace, query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of one query a row and head over the window before it and its own key.

    query: (rows, heads, size); key, value: (rows, key/value heads, size); keys, values: (rows, key/value heads, places,
    size). The order of the places does not matter. Returns (rows * key/value heads, sharing heads, size).
    """
    rows, kept_heads, places, size = keys.shape
    shared = query.shape[1] // kept_heads
    query = query.view(rows * kept_heads, shared, size)
    cached = work.buffer("cached scores", rows * kept_heads, shared, places)
    torch.bmm(query, keys.view(-1, places, size).mT, out=cached)
    own = work.buffer("own products", rows * kept_heads, shared, size)
    torch.mul(query, key.reshape(-1, 1, size), out=own)
    scores = work.buffer("scores", rows * kept_heads, shared, places + 1, dtype=torch.float32)
    scores[..., :places].copy_(cached)
    own_scores = work.buffer("own scores", rows * kept_heads, shared, 1)
    scores[..., places:].copy_(torch.sum(own, dim=-1, keepdim=True, out=own_scores))
    scores.mul_(size**-0.5)
    unseen = work.buffer("unseen", rows, places, dtype=torch.bool)
    scores.view(rows, kept_heads, shared, -1)[..., :places].masked_fill_(unseen[:, None, None], -torch.inf)
    weights = work.buffer("attention weights", *scores.shape, dtype=torch.float32)
    torch.softmax(scores, dim=-1, out=weights)
    cached.copy_(weights[..., :places])
    mixed = work.buffer("mixed", rows * kept_heads, shared, size)
    torch.bmm(cached, values.view(-1, places, size), out=mixed)
    own_weight = work.cast("own weight", weights[..., places:], mixed.dtype)
    return mixed.addcmul_(own_weight, value.reshape(-1, 1, size))


def _is_requested(operation: str) -> bool:
    return find_operation(operation).requested() is not None


def _is_plain(module: nn.Module) -> bool:
    """Whether a call of the module does what its class says and nothing else."""
    return not (module._forward_hooks or module._forward_pre_hooks)
