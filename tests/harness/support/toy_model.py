"""Toy model plugins, named on the command line by dotted path: `toy_model:Neighbour` and its misbehaving variants."""

import dataclasses
import itertools
import os
import signal
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from seqbench.contracts import Ablation, Flops, ModelPlugin, WidthAxis, check_settings, setting
from seqbench.errors import RequestError
from seqbench.nn import pack_rows


class NeighbourConfig(PreTrainedConfig):
    model_type = "toy-neighbour"

    vocab_size: int = 8
    width: int = 8
    dropout: float = 0.0
    deaf: bool = False
    tie_word_embeddings: bool = True


class NeighbourModel(PreTrainedModel):
    """The token before beside the present one, through one hidden layer; the head is tied to the embedding."""

    config_class = NeighbourConfig
    _tied_weights_keys: ClassVar = {"lm_head.weight": "embedding.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.inner = nn.Linear(2 * config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.width)
        self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.embedding

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, input_ids, attention_mask=None, past_key_values=None, use_cache=False, **_):
        batch, length = input_ids.shape
        packing = pack_rows(attention_mask, length)
        if packing is not None:
            input_ids = packing.pack(input_ids)
        present = self.embedding(input_ids)
        # The state is the embedding of a row's last token, (batch, 1, width).
        last = present.new_zeros(batch, 1, self.config.width) if past_key_values is None else past_key_values
        extended = torch.cat((last, present), dim=1)
        heard = 0.0 if self.config.deaf else 1.0
        inner = torch.relu(self.inner(torch.cat((present, extended[:, :-1]), dim=-1)))
        hidden = present + heard * self.dropout(inner)
        seen = torch.full((batch,), length) if packing is None else packing.mask.sum(dim=1)
        state = extended[torch.arange(batch), seen].unsqueeze(1).detach()
        if packing is not None:
            hidden = packing.unpack(hidden)
        return CausalLMOutputWithPast(
            logits=self.lm_head(self.norm(hidden)), past_key_values=state if use_cache else None
        )


class StatelessModel(NeighbourModel):
    """Reads whole sequences alone."""

    def forward(self, input_ids, attention_mask=None, **_):
        return super().forward(input_ids, attention_mask)


@dataclass(frozen=True)
class NeighbourSettings:
    vocab_size: int = setting(8, "token ids", minimum=1)
    width: int = setting(8, "size of everything", minimum=1, maximum=100_000_000)
    dropout: float = setting(0.1, "share of hidden units dropped in training", minimum=0, maximum=0.9)
    deaf: bool = setting(False, "whether the hidden layer is silent")
    note: str | None = setting(None, "free text")

    def __post_init__(self):
        check_settings(self)


class Neighbour(ModelPlugin[NeighbourSettings]):
    """A toy model: the token before."""

    name = "neighbour"
    summary = "the token before"
    version = "1"
    config_class = NeighbourSettings
    presets: ClassVar = {"tiny": NeighbourSettings(), "wide": NeighbourSettings(width=12)}
    width_axis = WidthAxis("width", 1)
    ablations: ClassVar = {
        "no-dropout": Ablation("no dropout", {"dropout": 0.0}, at_evaluation=True),
        "deaf": Ablation("the hidden layer is not heard", {"deaf": True}, in_training=False, at_evaluation=True),
    }

    def build(self, config):
        model = NeighbourModel(
            NeighbourConfig(vocab_size=config.vocab_size, width=config.width, dropout=config.dropout, deaf=config.deaf)
        )
        return self.equip(model)

    def equip(self, model):
        return model

    def with_vocabulary(self, config, vocab_size):
        return dataclasses.replace(config, vocab_size=vocab_size)

    def parameter_group(self, parameter_name):
        return "embedding" if "embedding" in parameter_name else "inner"

    def flops(self, config, sequence_length):
        per_token = 2 * config.width * (2 * config.width + config.vocab_size)
        return Flops({"all": per_token * sequence_length})

    def state_bytes(self, config, sequence_length):
        return 4 * config.width

    def attention_reach(self, config):
        return None

    def receptive_field(self, config):
        return None

    def confounds(self, config):
        return {"depth": "1 layer", "dropout": f"{config.dropout:g}"}


class Stateless(Neighbour):
    """Keeps nothing to go on from."""

    def build(self, config):
        return StatelessModel(super().build(config).config)


class Narrow(Neighbour):
    """Has an ablation that is another shape."""

    ablations: ClassVar = {"narrow": Ablation("half the width", {"width": 4})}


class ShortSighted(Neighbour):
    """Says that its attention bridges one token."""

    name = "short-sighted"

    def attention_reach(self, config):
        return 1


class RaisesInBuild(Neighbour):
    def build(self, config):
        raise ArithmeticError("no such architecture")


class Endless(Neighbour):
    def build(self, config):
        model = super().build(config)
        for number in itertools.count():
            model.register_parameter(f"layer_{number}", nn.Parameter(torch.empty(1)))


class RaisesInAccounting(Neighbour):
    def flops(self, config, sequence_length):
        raise ArithmeticError("nobody counts this")


class RaisesInConfig(Neighbour):
    def with_vocabulary(self, config, vocab_size):
        raise RequestError(f"this model reads no vocabulary of {vocab_size}")


def _hooked(act):
    """A model that calls `act` in every forward pass of training, the first one (which measures memory) excepted."""

    class Hooked(Neighbour):
        def equip(self, model):
            calls = []

            def hook(module, inputs):
                calls.append(module.training)
                if len(calls) > 3 and module.training:
                    act()

            model.inner.register_forward_pre_hook(hook)
            return model

    return Hooked


def _raise(error):
    raise error


class RaisesInForward(_hooked(lambda: _raise(ArithmeticError("the scan does not commute\nsecond line")))):
    pass


class RunsOutOfMemory(_hooked(lambda: _raise(torch.OutOfMemoryError("tried to allocate 7 PiB")))):
    pass


class Crashes(_hooked(lambda: os.kill(os.getpid(), signal.SIGSEGV))):
    pass


class Dies(_hooked(lambda: "TOY_SPARED" in os.environ or os.kill(os.getpid(), signal.SIGKILL))):
    """As if killed from outside, unless TOY_SPARED is set."""


class RaisesAtOnce(Neighbour):
    def equip(self, model):
        model.inner.register_forward_pre_hook(lambda module, inputs: _raise(ArithmeticError("not even once")))
        return model


class Untidy(Neighbour):
    """Leaves out what the contract requires."""

    confounds = ModelPlugin.confounds
    flops = ModelPlugin.flops


class NoPresetOfThatName(Neighbour):
    default_preset = "huge"


class TakesArgument(Neighbour):
    """Named with an argument, as in toy:argument."""

    def __init__(self, argument):
        if argument == "bad":
            raise RequestError("there is no model of the type 'bad'")
        self.summary = f"the mean of {argument}"


class NotAPlugin:
    name = "not-a-plugin"


class AskingModel(NeighbourModel):
    """Goes by what a number is on the host, which no graph can hold."""

    def forward(self, input_ids, attention_mask=None, **others):
        output = super().forward(input_ids, attention_mask, **others)
        if output.logits.sum().item() > 1e9:
            output.logits = output.logits / 2
        return output


class Asking(Neighbour):
    """A model that torch.compile cannot take whole."""

    def build(self, config):
        return AskingModel(super().build(config).config)
