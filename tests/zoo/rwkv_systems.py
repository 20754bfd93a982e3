"""RWKV-7: the file has two blocks, the second of which takes the values of the first."""

from collections.abc import Mapping
from typing import Any

import torch
from golden_files import Config, System
from torch import Tensor, nn

from seqbench.mixers import Chunk, MixerPlugin, Tree
from seqbench_baselines.rwkv7.plugin import RWKV7Plugin


class Blocks(nn.Module):
    """Layers by their numbers, the first with the norm of the embeddings."""

    def __init__(self, plugin: type[MixerPlugin], settings: Any, config: Config) -> None:
        super().__init__()
        for index, mixer in enumerate(plugin.mixers(settings)):
            self.add_module(str(index), plugin.layer_class(mixer(settings.hidden_size, settings), settings))
        norm = plugin.embedding_norm(settings)
        assert norm is not None
        self.get_submodule("0").add_module("ln0", norm)


def _run(module: Any, inputs: Mapping[str, Tensor], state: Tree, seen: int) -> tuple[Tensor, Tree]:
    hidden, carried = module.get_submodule("0.ln0")(inputs["x"]), []
    ids = torch.zeros(hidden.shape[:2], dtype=torch.int64)
    chunk = Chunk(ids, torch.full((hidden.shape[0],), seen), None)
    for index, layer in enumerate(module.children()):
        hidden, after, handed = layer(hidden, None if state is None else state[index], chunk)
        chunk = chunk.after(handed)
        carried.append(after)
    return hidden, carried


def _settings(config: Config) -> dict[str, Any]:
    ranks = config["lora"]
    return {
        "num_hidden_layers": 2,
        "intermediate_size": config["dim_ffn"],
        "num_heads": config["num_heads"],
        "head_dim": config["head_size"],
        "decay_rank": ranks["decay"],
        "removal_rank": ranks["a"],
        "value_rank": ranks["v"],
        "gate_rank": ranks["gate"],
    }


def _state(state: Tree) -> dict[str, Tensor]:
    return {
        "S": torch.stack([memory for (memory, _), _ in state]),
        "shift_att": torch.stack([newest for (_, newest), _ in state]),
        "shift_ffn": torch.stack([newest for _, newest in state]),
    }


RWKV_SYSTEMS = (System("rwkv7", RWKV7Plugin, _settings, _state, module=Blocks, run=_run),)
