"""A small model that keeps every clause of the contract: a gated recurrence and a window of attention in each layer.

The wrong models beside it are variations of it, each of one method.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from seqbench.contracts import Ablation, Flops, ModelPlugin, WidthAxis, check_settings, setting
from seqbench.nn import BackboneOutput, CarriedState, CausalCall, attended_pairs, pack_rows


class RightConfig(PreTrainedConfig):
    model_type = "right"

    vocab_size: int = 8
    width: int = 16
    layers: int = 1
    window: int = 4
    recurrent: bool = True
    tie_word_embeddings: bool = True


@dataclass
class State(CarriedState):
    """Per layer the recurrence (B, D), keys and values (B, window - 1, D); which of them are tokens; tokens seen."""

    hidden: list = field(default_factory=list)
    keys: list = field(default_factory=list)
    values: list = field(default_factory=list)
    valid: torch.Tensor | None = None
    seen: torch.Tensor | None = None

    def reorder_cache(self, beam_index):
        self.hidden, self.keys, self.values = (
            [part.index_select(0, beam_index) for part in parts] for parts in (self.hidden, self.keys, self.values)
        )
        self.valid, self.seen = self.valid.index_select(0, beam_index), self.seen.index_select(0, beam_index)


@dataclass
class Chunk:
    """What all layers share: the real tokens (B, T), their number, the mask of attention, the state before."""

    real: torch.Tensor
    lengths: torch.Tensor
    mask: torch.Tensor
    before: State


class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.attention_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.gate, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.read = nn.Linear(width, width, bias=False)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)


class RightModel(CausalCall, PreTrainedModel):
    config_class = RightConfig
    _tied_weights_keys: ClassVar = {"lm_head.weight": "embedding.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(self.make_layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.extend(config)
        self.post_init()

    def make_layer(self, config):
        return Layer(config.width)

    def extend(self, config):
        pass

    def get_input_embeddings(self):
        return self.embedding

    def get_output_embeddings(self):
        return self.lm_head

    def empty_state(self):
        return State()

    def run_backbone(self, input_ids, attention_mask, past_key_values, use_cache):
        batch, length = input_ids.shape
        packing = pack_rows(attention_mask, length)
        if packing is not None:
            input_ids = packing.pack(input_ids)
        begun = past_key_values is not None and past_key_values.seen is not None
        before = past_key_values if begun else self.zero_state(batch)
        chunk = self.plan(packing, batch, length, before)
        hidden = self.embed(input_ids, before.seen.unsqueeze(1) + torch.arange(length))
        after = State()
        hidden = self.finish(self.norm(self.run(hidden, chunk, after)))
        self.close(after, chunk)
        if packing is not None:
            hidden = packing.unpack(hidden)
        carries = use_cache or past_key_values is not None
        return BackboneOutput(last_hidden_state=hidden, past_key_values=after if carries else None)

    def finish(self, hidden):
        return hidden

    def zero_state(self, batch):
        places, width, layers = self.config.window - 1, self.config.width, self.config.layers
        zeros = torch.zeros(batch, places, width)
        hidden = [torch.zeros(batch, width)] * layers
        valid, seen = torch.zeros(batch, places, dtype=torch.bool), torch.zeros(batch, dtype=torch.int64)
        return State(hidden, [zeros] * layers, [zeros] * layers, valid, seen)

    def plan(self, packing, batch, length, before):
        real = torch.ones(batch, length, dtype=torch.bool) if packing is None else packing.mask
        places = self.config.window - 1
        distance = torch.arange(length).unsqueeze(1) + places - torch.arange(places + length)
        valid = F.pad(before.valid, (0, length), value=True)
        mask = ((distance >= 0) & (distance <= places) & valid.unsqueeze(1)).unsqueeze(1)
        return Chunk(real, real.sum(dim=1), mask, before)

    def embed(self, input_ids, positions):
        width = self.config.width
        turns = positions.unsqueeze(-1) / 10.0 ** torch.arange(1, 1 + width // 2)
        return self.embedding(input_ids) + 0.05 * torch.cat((turns.sin(), turns.cos()), dim=-1)

    def run(self, hidden, chunk, after):
        for index, layer in enumerate(self.layers):
            if self.config.recurrent:
                hidden = hidden + self.recur(layer, layer.norm(hidden), chunk, after, index)
            hidden = hidden + self.attend(layer, layer.attention_norm(hidden), chunk, after, index)
        return hidden

    def recur(self, layer, inputs, chunk, after, index):
        kept = torch.sigmoid(layer.gate(inputs) + 1)
        new = (1 - kept) * layer.value(inputs)
        states, state = self.scan(kept, new, chunk.before.hidden[index], chunk)
        after.hidden.append(state.detach())
        return layer.read(states)

    def scan(self, kept, new, state, chunk):
        # Padding stands behind a row's tokens and leaves the state as it is.
        real = chunk.real.unsqueeze(-1)
        kept, new = kept.where(real, 1), new.where(real, 0)
        states = []
        for now, added in zip(kept.unbind(1), new.unbind(1), strict=True):
            state = now * state + added
            states.append(state)
        return torch.stack(states, dim=1), state

    def attend(self, layer, inputs, chunk, after, index):
        query, key, value = layer.query_key_value(inputs).chunk(3, dim=-1)
        key = torch.cat((chunk.before.keys[index], key), dim=1)
        value = torch.cat((chunk.before.values[index], value), dim=1)
        after.keys.append(self.newest(key.detach(), chunk))
        after.values.append(self.newest(value.detach(), chunk))
        heads = (part.unsqueeze(1) for part in (query, key, value))
        mixed = F.scaled_dot_product_attention(*heads, attn_mask=chunk.mask)
        return layer.output(mixed.squeeze(1))

    def newest(self, extended, chunk):
        """The last window - 1 real places of each row."""
        index = chunk.lengths.unsqueeze(1) + torch.arange(self.config.window - 1)
        return extended.gather(1, index.unsqueeze(-1).expand(-1, -1, extended.shape[2]))

    def close(self, after, chunk):
        extended = torch.cat((chunk.before.valid, chunk.real), dim=1).unsqueeze(-1)
        after.valid = self.newest(extended, chunk).squeeze(-1)
        after.seen = chunk.before.seen + chunk.lengths


@dataclass(frozen=True)
class RightSettings:
    vocab_size: int = setting(8, "token ids", minimum=1)
    width: int = setting(16, "size of everything, even", minimum=2)
    layers: int = setting(1, "layers", minimum=1)
    window: int = setting(4, "tokens that attention sees", minimum=2)
    recurrent: bool = setting(True, "false: attention alone")

    def __post_init__(self):
        check_settings(self)


class Right(ModelPlugin[RightSettings]):
    """Keeps every clause."""

    name = "right"
    summary = "a gated recurrence and a window of attention"
    version = "1"
    config_class = RightSettings
    presets: ClassVar = {"tiny": RightSettings(), "wide": RightSettings(width=64)}
    width_axis = WidthAxis("width", 2)
    ablations: ClassVar = {"no-recurrence": Ablation("attention alone", {"recurrent": False}, at_evaluation=True)}
    model_class: ClassVar = RightModel

    def build(self, config):
        return self.model_class(self.model_class.config_class(**dataclasses.asdict(config)))

    def with_vocabulary(self, config, vocab_size):
        return dataclasses.replace(config, vocab_size=vocab_size)

    def parameter_group(self, parameter_name):
        return "embedding" if "embedding" in parameter_name else "layers"

    def flops(self, config, sequence_length):
        width, pairs = config.width, attended_pairs(sequence_length, config.window)
        maps = (3 if config.recurrent else 0) + 4
        return Flops(
            {
                "layers": 2 * config.layers * (maps * width**2 * sequence_length + 2 * pairs * width),
                "head": 2 * sequence_length * width * config.vocab_size,
            }
        )

    def state_bytes(self, config, sequence_length):
        places, seen = config.window - 1, 8
        return 4 * config.layers * config.width * (config.recurrent + 2 * places) + places + seen

    def attention_reach(self, config):
        return config.layers * (config.window - 1)

    def receptive_field(self, config):
        return None if config.recurrent else self.attention_reach(config) + 1

    def confounds(self, config):
        return {"depth": f"{config.layers} layers", "short convolution": "none"}
