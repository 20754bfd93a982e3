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
        next_groups: per write layer the group that each token goes to next, T numbers.
        tables: per write layer the phases of every group after the last token, (groups, N, M).
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
    result = Direct(hidden, [], [], torch.full((len(tokens),), math.inf))
    next_groups = groups
    for index in range(config.num_hidden_layers):
        layer = {
            name.removeprefix(f"layers.{index}."): tensor
            for name, tensor in weights.items()
            if name.startswith(f"layers.{index}.")
        }
        hidden = hidden + _attention(layer, config, _norm(hidden, layer["input_layernorm.weight"], config))
        anchors = weights[f"memory_embeddings.{index // config.memory_write_period}"]
        if index % config.memory_write_period == 0:
            groups = next_groups
            memory, next_groups, table, gap = _write(layer, config, hidden, memory, anchors, groups, training)
            result.next_groups.append(next_groups)
            result.tables.append(table)
            result.smallest_gap = torch.minimum(result.smallest_gap, gap)
        hidden = hidden + _read(layer, config, hidden, memory + anchors[groups])
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


def _rotate(head: Tensor, position: int, theta: float) -> Tensor:
    """Dimension j and j + d_h/2 are the two parts of a complex number turned by position * theta^(-2j/d_h)."""
    half = len(head) // 2
    turned = torch.empty_like(head)
    for j in range(half):
        angle = position * theta ** (-2 * j / len(head))
        turned[j] = head[j] * math.cos(angle) - head[j + half] * math.sin(angle)
        turned[j + half] = head[j] * math.sin(angle) + head[j + half] * math.cos(angle)
    return turned


def _attention(layer: Mapping[str, Tensor], config: PMNetConfig, inputs: Tensor) -> Tensor:
    size, shared = config.head_dim, config.num_attention_heads // config.num_key_value_heads
    queries, keys, values = (
        (inputs @ layer[f"self_attn.{name}_proj.weight"].T).unflatten(-1, (-1, size)) for name in "qkv"
    )
    queries = _norm(queries, layer["self_attn.q_norm.weight"], config)
    keys = _norm(keys, layer["self_attn.k_norm.weight"], config)
    places = range(len(inputs))
    queries = [[_rotate(head, t, config.rope_theta) for head in queries[t]] for t in places]
    keys = [[_rotate(head, t, config.rope_theta) for head in keys[t]] for t in places]
    outputs = []
    for t in places:
        seen = range(max(0, t - config.sliding_window + 1), t + 1)
        heads = []
        for j in range(config.num_attention_heads):
            scores = torch.stack([queries[t][j] @ keys[u][j // shared] for u in seen]) * size**-0.5
            heads.append(sum(p * values[u, j // shared] for p, u in zip(scores.softmax(dim=0), seen, strict=True)))
        outputs.append(torch.cat(heads))
    return torch.stack(outputs) @ layer["self_attn.o_proj.weight"].T


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
    steps = _phi(_linear(layer, f"{name}.proj_out", _linear(layer, f"{name}.proj_v", inputs)))
    table = [torch.zeros_like(memory[0]) for _ in anchors]
    written, chosen = [], []
    for t, group in enumerate(groups):
        increment = slots[t][:, None] * steps[t]
        if training and config.memory_cumsum and config.gradient_scale == "sqrt-count":
            fixed = increment.detach()
            increment = fixed + (increment - fixed) / math.sqrt(groups.count(group))
        if config.memory_cumsum:
            table[group] = table[group] + increment
            increment = table[group]
        written.append(memory[t] + increment)
        chosen.append(group * config.num_memory + int(slots[t].argmax()))
    best = slots.detach().topk(2, dim=1).values
    return torch.stack(written), chosen, torch.stack(table) % (2 * math.pi), best[:, 0] - best[:, 1]


def _read(layer: Mapping[str, Tensor], config: PMNetConfig, hidden: Tensor, slots: Tensor) -> Tensor:
    name, heads, angles = "memory_read_module", config.num_memory_read_heads, config.memory_size
    inputs = _norm(hidden, layer[f"{name}.norm.weight"], config)
    queries = _phi(_linear(layer, f"{name}.proj_q", inputs)).unflatten(-1, (heads, angles))
    projected = _linear(layer, f"{name}.proj_kv", _geo(slots)).unflatten(-1, (2, heads, angles))
    keys, values = _phi(projected[:, :, 0]), projected[:, :, 1]
    scores = torch.cos(queries[:, None] - keys).sum(dim=-1) / math.sqrt(angles)
    mixed = (scores.softmax(dim=1)[..., None] * values).sum(dim=1)
    return _linear(layer, f"{name}.proj_out", mixed.flatten(1))


def _mlp(layer: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    gate = inputs @ layer["mlp.gate_proj.weight"].T
    gated = gate * torch.sigmoid(gate) * (inputs @ layer["mlp.up_proj.weight"].T)
    return gated @ layer["mlp.down_proj.weight"].T
