"""Mamba and Mamba-2 as their tests build them: small, of every shape, and with states that matter."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Mamba2ForCausalLM as TransformersMamba2
from transformers import MambaForCausalLM as TransformersMamba
from transformers import PreTrainedModel

from seqbench_baselines.mamba.plugin import MambaForCausalLM, MambaPlugin
from seqbench_baselines.mamba.state_space import StateSpacePlugin
from seqbench_baselines.mamba2.plugin import Mamba2ForCausalLM, Mamba2Plugin

VOCABULARY = 50


@dataclass(frozen=True)
class Architecture:
    """A plugin, its model in the published format, and the model of transformers that it stands for.

    Attributes:
        variants: settings of every kind that transformers knows; the first is the common one.
        unpublished: settings that its classes do not know.
        enliven: changes a mixer's initial weights so that the state matters to the logits.
        long: tokens of more than one chunk of the scan, where it has chunks.
        gradient_tolerance: beside transformers, relative to the largest entry.
    """

    plugin: StateSpacePlugin
    ours: type[PreTrainedModel]
    theirs: type[PreTrainedModel]
    variants: list[Any]
    unpublished: list[Any]
    enliven: Callable[[Any], None]
    long: int
    gradient_tolerance: float

    def stand_in(self, config: Any, weights: PreTrainedModel | None = None) -> PreTrainedModel:
        """transformers' own model with those settings, freshly initialised or with the weights of ours."""
        model = self.theirs(self.theirs.config_class(**self.plugin.native_fields(config)))
        if weights is not None:
            model.load_state_dict(weights.state_dict())
        return model

    def build(self, config: Any = None) -> PreTrainedModel:
        torch.manual_seed(0)
        model = self.plugin.build(config or self.variants[0])
        for block in model.backbone.layers:
            self.enliven(block.mixer)
        return model.eval()


def _take_larger_steps_and_maps(mixer: Any) -> None:
    mixer.dt_proj.bias.data.add_(1)
    mixer.x_proj.weight.data.mul_(4)


def _take_larger_steps_and_longer_memory(mixer: Any) -> None:
    mixer.dt_bias.data.add_(2)
    mixer.A_log.data.sub_(1)


_SHAPE: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 2, "state_size": 5}
_SMALL: Any = replace(MambaPlugin.presets["tiny"], **_SHAPE, extra_channels=3)
MAMBA = Architecture(
    MambaPlugin(),
    MambaForCausalLM,
    TransformersMamba,
    [
        _SMALL,
        replace(_SMALL, use_bias=True, use_conv_bias=False, tie_word_embeddings=False),
        replace(_SMALL, short_convolution=2, time_step_rank=3, expand=1),
        replace(_SMALL, short_convolution=1),
    ],
    [
        replace(_SMALL, short_convolution=0),
        replace(_SMALL, feed_forward="swiglu"),
        replace(_SMALL, norm="layer", position_encoding="learned"),
    ],
    _take_larger_steps_and_maps,
    long=13,
    gradient_tolerance=1e-5,
)

_SMALL_2: Any = replace(Mamba2Plugin.presets["tiny"], **_SHAPE, num_heads=6)
MAMBA2 = Architecture(
    Mamba2Plugin(),
    Mamba2ForCausalLM,
    TransformersMamba2,
    [
        _SMALL_2,
        replace(_SMALL_2, n_groups=3, tie_word_embeddings=False),
        replace(_SMALL_2, use_bias=True, use_conv_bias=False, n_groups=6),
        replace(_SMALL_2, short_convolution=1, expand=1, num_heads=1),
    ],
    [
        replace(_SMALL_2, short_convolution=0),
        replace(_SMALL_2, feed_forward="swiglu"),
        replace(_SMALL_2, norm="layer", position_encoding="learned"),
        replace(_SMALL_2, extra_head_dim=2),
    ],
    _take_larger_steps_and_longer_memory,
    long=70,
    gradient_tolerance=2e-5,
)


def tokens(batch: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(0, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def loss_of(model: PreTrainedModel, input_ids: Tensor) -> Tensor:
    return F.cross_entropy(model(input_ids).logits[:, :-1].flatten(0, 1), input_ids[:, 1:].flatten())


def check_parameters(groups: dict[str, int], config: Any, per_block: int) -> None:
    """The groups hold the vocabulary, `per_block` parameters in every block, and the last norm."""
    embedding = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    assert groups["embedding"] == embedding
    assert sum(groups.values()) - embedding == config.num_hidden_layers * per_block + config.hidden_size
    assert set(groups) == {"embedding", "projections", "convolution", "scan", "norm"}
