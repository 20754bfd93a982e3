"""Systems whose memory fades: linear attention and its kin."""

from typing import Any

from golden_files import Config, System, tails
from torch import Tensor

from seqbench.mixers import Tree
from seqbench_baselines.linear_attention.lightnet import LightNetPlugin
from seqbench_baselines.linear_attention.members import GLAPlugin, RetNetPlugin, SimpleGLAPlugin


def _sizes(config: Config) -> dict[str, Any]:
    """Of the memories; the file's code divides the width by the number of heads."""
    heads, width = config["num_heads"], config["hidden_size"]
    settings = {
        "num_heads": heads,
        "head_dim": config.get("expand_ratio", int(width * config.get("expand_k", 1)) // heads),
        "value_head_dim": int(width * config.get("expand_v", 1)) // heads,
    }
    return settings | ({"gate_rank": config["gate_low_rank_dim"]} if "gate_low_rank_dim" in config else {})


def _memory(state: Tree) -> dict[str, Tensor]:
    return {"S": state}


def _memory_and_inputs(state: Tree) -> dict[str, Tensor]:
    memory, inputs = state
    keys = memory.shape[1] * memory.shape[2]
    query, key, value = tails(inputs, (keys, keys, inputs.shape[-1] - 2 * keys))
    return {"S": memory, "conv_q": query, "conv_k": key, "conv_v": value}


def _memory_and_weights(state: Tree) -> dict[str, Tensor]:
    memory, weights = state
    return {"S": memory, "z": weights.unflatten(-1, memory.shape[1:3])}


DECAYING_SYSTEMS = (
    System("gla", GLAPlugin, _sizes, _memory),
    System("simple_gla", SimpleGLAPlugin, _sizes, _memory_and_inputs),
    System("retnet", RetNetPlugin, _sizes, _memory),
    System("lightnet", LightNetPlugin, _sizes, _memory_and_weights),
)
