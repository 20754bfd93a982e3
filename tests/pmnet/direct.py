"""PMNet token by token in fp64, written from its equations (arXiv 2605.13370) and from nothing else: the oracle.

It takes parameters by their published names, one sequence without padding, and shares no code with what it tests.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pmnet_plugin.configuration import PMNetConfig


@dataclass
class Direct:
    """What a sequence of T tokens gives.

    Attributes:
        logits: (T, V).
        next_groups: per write layer the group that each token goes to next, T numbers; none in a flat memory.
        tables: per write layer the phases of every group after the last token, (groups, N, M) radians; with relaxed
            dynamics the complex state z.
        smallest_gap: (T,), the least difference between the two best slots, over the write layers.
    """

    logits: Tensor
    next_groups: list[list[int]]
    tables: list[Tensor]
    smallest_gap: Tensor


def direct(parameters: Mapping[str, Tensor], config: PMNetConfig, tokens: list[int], training: bool = False) -> Direct:
    """Run one sequence; with `training`, the gradient that reaches an increment is divided by sqrt(c)."""
    weights = {name.removeprefix("model."): tensor for name, tensor in parameters.items()}
    hidden = weights["embed_tokens.weight"][tokens]
    memory = hidden.new_zeros(len(tokens), config.num_memory, config.memory_size)
    groups = [0] * len(tokens)
    gate: Tensor | float = 1.0
    result = Direct(hidden, [], [], torch.full((len(tokens),), math.inf))
    next_groups = groups
    for index in range(config.num_hidden_layers):
        layer = {
            name.removeprefix(f"layers.{index}."): tensor
            for name, tensor in weights.items()
            if name.startswith(f"layers.{index}.")
        }
        hidden = hidden + _attention(layer, config, _norm(hidden, layer["input_layernorm.weight"], config))
        level, levels = index // config.memory_write_period, -(-config.num_hidden_layers // config.memory_write_period)
        anchors = weights[f"memory_embeddings.{level}"]
        if level in {"none": [], "root": [0], "leaf": [levels - 1], "all": range(levels)}[config.zeroed_anchors]:
            anchors = anchors * 0
        if index % config.memory_write_period == 0:
            groups = next_groups if config.memory_tree == "routed" else groups
            written, next_groups, table, gap = _write(layer, config, hidden, memory, anchors, groups, training)
            if config.memory_dynamics == "relaxed":
                gate = written.abs() / (1 + written.abs())
                written = torch.atan2(written.imag, written.real)
            memory = memory + written
            if config.memory_tree == "routed":
                result.next_groups.append(next_groups)
            result.tables.append(table)
            result.smallest_gap = torch.minimum(result.smallest_gap, gap)
        hidden = hidden + _read(layer, config, hidden, memory + anchors[groups], gate)
        hidden = hidden + _mlp(layer, _norm(hidden, layer["post_attention_layernorm.weight"], config))
    head = weights["embed_tokens.weight"] if config.tie_word_embeddings else parameters["lm_head.weight"]
    result.logits = _norm(hidden, weights["norm.weight"], config) @ head.T
    return result


def _phi(values: Tensor) -> Tensor:
    return math.pi * torch.tanh(values)


def _geo(angles: Tensor) -> Tensor:
    return torch.cat((torch.sin(angles), torch.cos(angles)), dim=-1)


def _norm(values: Tensor, weight: Tensor, config: PMNetConfig) -> Tensor:
    return values / torch.sqrt((values**2).mean(dim=-1, keepdim=True) + config.rms_norm_eps) * weight


def _linear(layer: Mapping[str, Tensor], name: str, values: Tensor) -> Tensor:
    return values @ layer[f"{name}.weight"].T + layer[f"{name}.bias"]


def _rotate(heads: Tensor, theta: float) -> Tensor:
    """Heads (T, heads, d_h): dimensions j and j + d_h/2 are a complex number, turned by t theta^(-2j/d_h)."""
    half = heads.shape[-1] // 2
    frequencies = torch.tensor([theta ** (-j / half) for j in range(half)], dtype=heads.dtype)
    turns = torch.polar(torch.ones((), dtype=heads.dtype), torch.arange(len(heads)).outer(frequencies))
    turned = torch.complex(heads[..., :half], heads[..., half:]) * turns[:, None]
    return torch.cat((turned.real, turned.imag), dim=-1)


def _attention(layer: Mapping[str, Tensor], config: PMNetConfig, inputs: Tensor) -> Tensor:
    size, shared = config.head_dim, config.num_attention_heads // config.num_key_value_heads
    queries, keys, values = (
        (inputs @ layer[f"self_attn.{name}_proj.weight"].T).unflatten(-1, (-1, size)) for name in "qkv"
    )
    queries = _rotate(_norm(queries, layer["self_attn.q_norm.weight"], config), config.rope_theta)
    keys = _rotate(_norm(keys, layer["self_attn.k_norm.weight"], config), config.rope_theta)
    places = torch.arange(len(inputs))
    distance = places[:, None] - places
    unseen = (distance < 0) | (distance >= config.sliding_window)
    heads = []
    for j in range(config.num_attention_heads):
        scores = queries[:, j] @ keys[:, j // shared].T * size**-0.5
        heads.append(scores.masked_fill(unseen, -math.inf).softmax(dim=1) @ values[:, j // shared])
    return torch.cat(heads, dim=1) @ layer["self_attn.o_proj.weight"].T


def _write(
    layer: Mapping[str, Tensor],
    config: PMNetConfig,
    hidden: Tensor,
    memory: Tensor,
    anchors: Tensor,
    groups: list[int],
    training: bool,
) -> tuple[Tensor, list[int], Tensor, Tensor]:
    name = "memory_write_module"
    inputs = _norm(hidden, layer[f"{name}.norm.weight"], config)
    queries = _phi(_linear(layer, f"{name}.proj_q", inputs))
    keys = _phi(_linear(layer, f"{name}.proj_k", _geo(memory + anchors[groups])))
    scores = torch.cos(queries[:, None] - keys).sum(dim=-1) / math.sqrt(config.memory_size)
    slots = scores.softmax(dim=1)
    values = _linear(layer, f"{name}.proj_v", inputs)
    steps = _phi(_linear(layer, f"{name}.proj_out", values))
    if config.memory_dynamics == "relaxed":
        steps = torch.polar(torch.log1p(_linear(layer, f"{name}.proj_rho", values).exp()), steps)
    table = [torch.zeros_like(steps[0]).expand(config.num_memory, -1) for _ in anchors]
    written, chosen = [], []
    for t, group in enumerate(groups):
        increment = slots[t][:, None] * steps[t]
        if training and config.memory_cumsum and config.gradient_scale == "sqrt-count":
            fixed = increment.detach()
            increment = fixed + (increment - fixed) / math.sqrt(groups.count(group))
        if config.memory_cumsum:
            table[group] = table[group] + increment
            increment = table[group]
        written.append(increment)
        chosen.append(group * config.num_memory + int(slots[t].argmax()))
    best = slots.detach().topk(2, dim=1).values
    final = torch.stack(table)
    final = final if final.is_complex() else final % (2 * math.pi)
    return torch.stack(written), chosen, final, best[:, 0] - best[:, 1]


def _read(
    layer: Mapping[str, Tensor], config: PMNetConfig, hidden: Tensor, phases: Tensor, gate: Tensor | float
) -> Tensor:
    name, heads, angles = "memory_read_module", config.num_memory_read_heads, config.memory_size
    inputs = _norm(hidden, layer[f"{name}.norm.weight"], config)
    queries = _phi(_linear(layer, f"{name}.proj_q", inputs)).unflatten(-1, (heads, angles))
    slots = torch.cat((gate * torch.sin(phases), gate * torch.cos(phases)), dim=-1)
    projected = _linear(layer, f"{name}.proj_kv", slots).unflatten(-1, (2, heads, angles))
    keys, values = _phi(projected[:, :, 0]), projected[:, :, 1]
    scores = torch.cos(queries[:, None] - keys).sum(dim=-1) / math.sqrt(angles)
    mixed = (scores.softmax(dim=1)[..., None] * values).sum(dim=1)
    return _linear(layer, f"{name}.proj_out", mixed.flatten(1))


def _mlp(layer: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    gate = inputs @ layer["mlp.gate_proj.weight"].T
    gated = gate * torch.sigmoid(gate) * (inputs @ layer["mlp.up_proj.weight"].T)
    return gated @ layer["mlp.down_proj.weight"].T
