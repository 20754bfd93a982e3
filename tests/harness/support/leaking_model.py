"""Linear attention, honest and cheating: `leaking_model:Honest`, and variations that read what they must not."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from seqbench.contracts import Ablation, Flops, ModelPlugin, WidthAxis, check_settings, setting
from seqbench.nn import pack_rows


class HonestConfig(PreTrainedConfig):
    model_type = "leaking"

    vocab_size: int = 8
    width: int = 8
    peeks: bool = False


class HonestModel(PreTrainedModel):
    """Keys and values of all tokens so far are summed; what `look` returns of the tokens is what they are made from."""

    config_class = HonestConfig

    def __init__(self, config):
        super().__init__(config)
        width = config.width
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.norm, self.lm_head = nn.LayerNorm(width), nn.Linear(width, config.vocab_size, bias=False)
        self.register_buffer("calls", torch.zeros(()))
        self.post_init()

    def look(self, tokens):
        return peek(tokens) if self.config.peeks else tokens

    def forward(self, input_ids, attention_mask=None, past_key_values=None, use_cache=False, **_):
        packing = pack_rows(attention_mask, input_ids.shape[1])
        if packing is not None:
            input_ids = packing.pack(input_ids)
        if self.training:
            self.calls += 1
        present = self.embedding(input_ids)
        seen = self.look(present)
        products = (F.elu(self.key(seen)) + 1).unsqueeze(-1) * self.value(seen).unsqueeze(-2)
        if packing is not None:
            products = products * packing.mask[..., None, None]
        sums = products.cumsum(dim=1)
        if past_key_values is not None:
            sums = sums + past_key_values.unsqueeze(1)
        hidden = present + (self.query(present).unsqueeze(-2) @ sums).squeeze(-2)
        if packing is not None:
            hidden = packing.unpack(hidden)
        state = sums[:, -1].detach().clone() if use_cache else None
        return CausalLMOutputWithPast(logits=self.lm_head(self.norm(hidden)), past_key_values=state)


def peek(tokens):
    """Each place has the token after it."""
    return torch.cat((tokens[:, 1:], tokens[:, -1:]), dim=1)


class PeekingModel(HonestModel):
    def look(self, tokens):
        return peek(tokens)


class PeekingInTrainingModel(HonestModel):
    def look(self, tokens):
        return peek(tokens) if self.training else tokens


class PeekingInEvaluationModel(HonestModel):
    def look(self, tokens):
        return tokens if self.training else peek(tokens)


class PeekingFarModel(HonestModel):
    def look(self, tokens):
        return peek(tokens) if tokens.shape[1] > 100 else tokens


class PeekingFaintlyModel(HonestModel):
    def look(self, tokens):
        return tokens + 1e-7 * peek(tokens)


class PeekingLaterModel(HonestModel):
    """Reads the future once it is trained."""

    def look(self, tokens):
        return peek(tokens) if self.calls > 8 and not self.training else tokens


class MixingLaterModel(HonestModel):
    """Mixes rows once it is trained."""

    def look(self, tokens):
        return tokens - tokens.mean(dim=0, keepdim=True) if self.calls > 8 else tokens


class MixingRowsModel(HonestModel):
    def look(self, tokens):
        return tokens - tokens.mean(dim=0, keepdim=True) if self.training else tokens


class RememberingModel(HonestModel):
    """Takes a running mean of all that it has ever seen."""

    def look(self, tokens):
        self.mean = 0.9 * getattr(self, "mean", 0.0) + 0.1 * tokens.detach().mean()
        return tokens - self.mean


class DrawingModel(HonestModel):
    """Honest, with dropout."""

    def look(self, tokens):
        return F.dropout(tokens, 0.3, self.training)


class SeeingPaddingModel(HonestModel):
    def forward(self, input_ids, attention_mask=None, **options):
        return super().forward(input_ids, None, **options)


@dataclass(frozen=True)
class Settings:
    vocab_size: int = setting(8, "token ids", minimum=1)
    width: int = setting(8, "size of everything", minimum=1)
    peeks: bool = setting(False, "whether it reads the future")

    def __post_init__(self):
        check_settings(self)


class Honest(ModelPlugin[Settings]):
    """Linear attention."""

    name = "honest"
    summary = "linear attention"
    version = "1"
    config_class = Settings
    presets: ClassVar = {"tiny": Settings()}
    width_axis = WidthAxis("width", 1)
    ablations: ClassVar = {"peek": Ablation("reads the future", {"peeks": True}, at_evaluation=True)}
    model_class: ClassVar = HonestModel

    def build(self, config):
        return self.model_class(HonestConfig(**dataclasses.asdict(config)))

    def with_vocabulary(self, config, vocab_size):
        return dataclasses.replace(config, vocab_size=vocab_size)

    def parameter_group(self, parameter_name):
        return "embedding" if "embedding" in parameter_name or "head" in parameter_name else "inner"

    def flops(self, config, sequence_length):
        return Flops({"all": 2 * sequence_length * config.width * (5 * config.width + config.vocab_size)})

    def state_bytes(self, config, sequence_length):
        return 4 * config.width**2

    def attention_reach(self, config):
        return None

    def receptive_field(self, config):
        return None

    def confounds(self, config):
        return {"depth": "1 layer"}


def _plugin(model_class, **attributes):
    return type(model_class.__name__.removesuffix("Model"), (Honest,), {"model_class": model_class, **attributes})


Peeking = _plugin(PeekingModel)
PeekingInTraining = _plugin(PeekingInTrainingModel)
PeekingInEvaluation = _plugin(PeekingInEvaluationModel)
PeekingFar = _plugin(PeekingFarModel)
PeekingFaintly = _plugin(PeekingFaintlyModel)
PeekingLater = _plugin(PeekingLaterModel)
MixingRows = _plugin(MixingRowsModel)
MixingLater = _plugin(MixingLaterModel)
Remembering = _plugin(RememberingModel)
Drawing = _plugin(DrawingModel)
SeeingPadding = _plugin(SeeingPaddingModel)
Declaring = _plugin(SeeingPaddingModel, exemptions={"padding": "it reads rows of one length"})
