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

from seqbench_baselines.mamba.model import MambaForCausalLM
from seqbench_baselines.mamba.plugin import MambaPlugin, MambaSettings
from seqbench_baselines.mamba.state_space_plugin import StateSpacePlugin, StateSpaceSettings
from seqbench_baselines.mamba2.model import Mamba2ForCausalLM
from seqbench_baselines.mamba2.plugin import Mamba2Plugin, Mamba2Settings

VOCABULARY = 50


@dataclass(frozen=True)
class Architecture:
    """A plugin, its model and the model of transformers that it stands for.

    Attributes:
        variants: settings of every kind; the first is the common one.
        enliven: changes a mixer's initial weights so that the state matters to the logits.
        long: tokens of more than one chunk of the scan, where it has chunks.
        gradient_tolerance: beside transformers, relative to the largest entry.
    """

    plugin: StateSpacePlugin[Any]
    ours: type[PreTrainedModel]
    theirs: type[PreTrainedModel]
    variants: list[StateSpaceSettings]
    enliven: Callable[[Any], None]
    long: int
    gradient_tolerance: float

    def build(self, config: StateSpaceSettings | None = None) -> PreTrainedModel:
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


_SMALL = MambaSettings(vocab_size=VOCABULARY, hidden_size=24, num_hidden_layers=2, state_size=5, extra_channels=3)
MAMBA = Architecture(
    MambaPlugin(),
    MambaForCausalLM,
    TransformersMamba,
    [
        _SMALL,
        replace(_SMALL, use_bias=True, use_conv_bias=False, tie_word_embeddings=False),
        replace(_SMALL, conv_kernel=2, time_step_rank=3, expand=1),
        replace(_SMALL, conv_kernel=1),
    ],
    _take_larger_steps_and_maps,
    long=13,
    gradient_tolerance=1e-5,
)

_SMALL_2 = Mamba2Settings(vocab_size=VOCABULARY, hidden_size=24, num_hidden_layers=2, num_heads=6, state_size=5)
MAMBA2 = Architecture(
    Mamba2Plugin(),
    Mamba2ForCausalLM,
    TransformersMamba2,
    [
        _SMALL_2,
        replace(_SMALL_2, n_groups=3, tie_word_embeddings=False),
        replace(_SMALL_2, use_bias=True, use_conv_bias=False, n_groups=6),
        replace(_SMALL_2, conv_kernel=1, expand=1, num_heads=1),
    ],
    _take_larger_steps_and_longer_memory,
    long=70,
    gradient_tolerance=2e-5,
)


def tokens(batch: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(0, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


def loss_of(model: PreTrainedModel, input_ids: Tensor) -> Tensor:
    return F.cross_entropy(model(input_ids).logits[:, :-1].flatten(0, 1), input_ids[:, 1:].flatten())


def check_parameters(groups: dict[str, int], config: StateSpaceSettings, per_block: int) -> None:
    """The groups hold the vocabulary, `per_block` parameters in every block, and the last norm."""
    embedding = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    assert groups["embedding"] == embedding
    assert sum(groups.values()) - embedding == config.num_hidden_layers * per_block + config.hidden_size
    assert set(groups) == {"embedding", "projections", "convolution", "scan", "norm"}
