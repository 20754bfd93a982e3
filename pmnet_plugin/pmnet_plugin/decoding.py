"""PMNet's steps of one token: the memory's part beside that of the decoder kit (seqbench.nn.decoding).

Reads and writes are the equations of memory.py over buffers, without routing back to the host: the group of a row is a
number on the device.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from pmnet_plugin.configuration import PMNetConfig
from pmnet_plugin.memory import MemoryRead, MemoryWrite
from seqbench.nn import DecodingSteps, Workspace
from seqbench_kernels.phase_scan import phase_step_


class PMNetSteps(DecodingSteps):
    """Steps of a PMNet with unitary memory; with relaxed dynamics the ordinary forward call is taken."""

    known = (*DecodingSteps.known, nn.ParameterList)

    def __init__(self, backbone: nn.Module, config: PMNetConfig) -> None:
        memory = ("memory_read", "memory_write") if config.use_memory else ()
        super().__init__(backbone, config.head_dim, config.rope_theta, ("sliding_window_attention", *memory))
        self._config = config

    def fits(self, backbone: nn.Module, tokens: Tensor, cache: Any) -> bool:
        """As `DecodingSteps.fits`; cache: PMNetCache or None."""
        if self._config.use_memory and self._config.memory_dynamics != "unitary":
            return False
        return super().fits(backbone, tokens, cache)

    def run(self, backbone: Any, tokens: Tensor, cache: Any) -> Tensor:
        """As `DecodingSteps.run`; cache: PMNetCache."""
        work, hidden = self.start(backbone, tokens, cache)
        # A chunk leaves tables that are parts of larger ones; steps change them in place.
        cache.tables = [table.contiguous() for table in cache.tables]
        memory = _Memory(work, self._config, len(tokens))
        for index, layer in enumerate(backbone.layers):
            self.attend(work, layer, index, cache, hidden)
            if layer.memory_write_module is not None:
                table = cache.tables[layer.level] if cache.tables else None
                memory.write(layer.memory_write_module, hidden, backbone.anchors(layer.level), table)
            if layer.memory_read_module is not None:
                hidden.add_(memory.read(layer.memory_read_module, hidden))
            self.feed_forward(work, layer, hidden)
        return self.finish(work, backbone, cache, hidden)


class _Memory:
    """What the layers of one step hand on: m (rows, N, M), geo(m + e) (rows, N, 2M) and the rows' groups."""

    def __init__(self, work: Workspace, config: PMNetConfig, rows: int) -> None:
        slots, angles = config.num_memory, config.memory_size
        self._work, self._rows, self._slots, self._angles = work, rows, slots, angles
        self._scale = 1 / math.sqrt(angles)
        self._recurrent, self._routed = config.memory_cumsum, config.memory_tree == "routed"
        wide = torch.float32
        self._phases = work.buffer("phases", rows, slots, angles, dtype=wide).zero_()
        self._geo = work.buffer("geo", rows, slots, 2 * angles, dtype=wide)
        self._group = work.buffer("group", rows, dtype=torch.int64).zero_()

    def write(self, module: MemoryWrite, hidden: Tensor, anchors: Tensor, table: Tensor | None) -> None:
        """Write one level and route the rows; anchors: (groups, N, M), table: (rows, groups, N * M) int32 or None."""
        work, rows, slots = self._work, self._rows, self._slots
        normalised = work.normalise("write norm", module.norm, hidden)
        own = work.buffer(f"anchors of {len(anchors)}", rows, slots, self._angles, dtype=anchors.dtype)
        torch.index_select(anchors, 0, self._group, out=own)
        own = work.cast("wide anchors", own, torch.float32)
        self._look(own)
        query = self._phase("write query", work.project("write query", module.proj_q, normalised))
        keys = work.project("write keys", module.proj_k, self._geo.view(rows * slots, -1))
        keys = self._phase("write keys", keys).view(rows, slots, -1)
        weights = self._weights("write", query.unsqueeze(1), keys, dim=1)
        values = work.project("write values", module.proj_v, normalised)
        steps = self._phase("write steps", work.project("write steps", module.proj_out, values))
        increments = work.buffer("increments", *keys.shape, dtype=torch.float32)
        torch.mul(weights.unsqueeze(2), steps.unsqueeze(1), out=increments)
        if self._recurrent:
            assert table is not None
            increments = phase_step_(table, increments.view(rows, -1), self._group, work.buffer).view(increments.shape)
        self._phases.add_(increments)
        self._look(own)
        if self._routed:
            chosen = work.buffer("chosen", rows, dtype=torch.int64)
            torch.argmax(weights, dim=1, out=chosen)
            self._group.mul_(slots).add_(chosen)

    def read(self, module: MemoryRead, hidden: Tensor) -> Tensor:
        """What a layer reads, (rows, hidden_size)."""
        work, rows, slots, angles, heads = self._work, self._rows, self._slots, self._angles, module.heads
        normalised = work.normalise("read norm", module.norm, hidden)
        query = self._phase("read query", work.project("read query", module.proj_q, normalised))
        key_weight, value_weight = module.proj_kv.weight.chunk(2)
        key_bias, value_bias = module.proj_kv.bias.chunk(2)
        geo = self._geo.view(rows * slots, -1)
        keys = work.buffer("read keys", rows * slots, heads * angles)
        torch.addmm(key_bias, work.cast("rounded geo", geo, work.dtype), key_weight.t(), out=keys)
        keys = self._phase("read keys", keys).view(rows, slots, heads, angles)
        weights = self._weights("read", query.view(rows, 1, heads, angles), keys, dim=1)
        mixed = work.buffer("read mix", rows, heads, 2 * angles, dtype=torch.float32)
        torch.bmm(weights.transpose(1, 2), self._geo, out=mixed)
        by_head = work.buffer("read mix by head", heads, rows, 2 * angles).copy_(mixed.transpose(0, 1))
        values = work.buffer("read values by head", heads, rows, angles)
        weight, bias = value_weight.view(heads, angles, -1), value_bias.view(heads, 1, angles)
        torch.baddbmm(bias, by_head, weight.transpose(1, 2), out=values)
        joined = work.buffer("read values", rows, heads, angles).copy_(values.transpose(0, 1))
        return work.project("read out", module.proj_out, joined.view(rows, -1))

    def _look(self, anchors: Tensor) -> None:
        """Make geo of the angles m + e."""
        angles = self._work.buffer("angles", *self._phases.shape, dtype=torch.float32)
        torch.add(self._phases, anchors, out=angles)
        torch.sin(angles, out=self._geo[..., : self._angles])
        torch.cos(angles, out=self._geo[..., self._angles :])

    def _phase(self, name: str, values: Tensor) -> Tensor:
        """phi(x) = pi tanh(x) in fp32, in place where `values` are fp32."""
        return self._work.cast(name + " phases", values, torch.float32).tanh_().mul_(math.pi)

    def _weights(self, name: str, query: Tensor, keys: Tensor, dim: int) -> Tensor:
        """The softmax over `dim` of sum_j cos(q_j - k_j) / sqrt(M); the last dimension is summed."""
        difference = self._work.buffer(name + " difference", *keys.shape, dtype=torch.float32)
        torch.sub(query, keys, out=difference).cos_()
        scores = self._work.buffer(name + " scores", *keys.shape[:-1], dtype=torch.float32)
        torch.sum(difference, dim=-1, out=scores).mul_(self._scale)
        weights = self._work.buffer(name + " weights", *scores.shape, dtype=torch.float32)
        return torch.softmax(scores, dim=dim, out=weights)
