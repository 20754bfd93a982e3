"""PAM and SAM: mixers, and whole language models, whose parameters the files name by the published code."""

from collections.abc import Mapping
from typing import Any

import torch
from golden_files import Config, System
from torch import Tensor

from seqbench.mixers import Chunk, Tree
from seqbench_baselines.phase_associative.pam import PAMPlugin
from seqbench_baselines.phase_associative.sam import SAMPlugin


def _heads(config: Config) -> dict[str, Any]:
    return {"num_heads": config["num_heads"], "head_dim": config["head_dim"]}


def _complex_heads(config: Config) -> dict[str, Any]:
    return _heads(config) | {"hidden_size": 2 * config["dim"]}


def _run_complex(module: Any, inputs: Mapping[str, Tensor], state: Tree, seen: int) -> tuple[Tensor, Tree]:
    """Of pairs, (batch, length, channels, 2): the mixer has real parts in front of imaginary ones."""
    hidden = inputs["x"].transpose(2, 3).flatten(2)
    ids = torch.zeros(hidden.shape[:2], dtype=torch.int64)
    output, state = module(hidden, state, Chunk(ids, torch.full((hidden.shape[0],), seen), None))
    return output.unflatten(2, (2, -1)).transpose(2, 3), state


PHASE_SYSTEMS = (
    # Values before keys in the file.
    System("pam", PAMPlugin, _complex_heads, lambda state: {"S": state.transpose(2, 3)}, run=_run_complex),
    System("sam", SAMPlugin, _heads, lambda state: {"S": state}),
)
