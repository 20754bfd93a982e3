"""The delta rules' lines of the table of systems."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from golden_files import Config, System, run_mixer, tails
from torch import Tensor

from seqbench.mixers import Tree
from seqbench_baselines.delta_rule.delta_net import DeltaNetPlugin
from seqbench_baselines.delta_rule.gated_deltanet import GatedDeltaNetPlugin
from seqbench_baselines.delta_rule.kda import KimiDeltaAttentionPlugin
from seqbench_baselines.delta_rule.mom import MixtureOfMemoriesPlugin


def renamed(names: Mapping[str, str], **further: Callable[[Config], Any]) -> Callable[[Config], dict[str, Any]]:
    """Settings of a file's hyperparameters: setting -> the file's name of it, or what to compute of the file's.

    A name that the file does not have leaves the plugin's default.
    """

    def settings(config: Config) -> dict[str, Any]:
        found = {setting: config[name] for setting, name in names.items() if name in config}
        return found | {setting: compute(config) for setting, compute in further.items()}

    return settings


def _head_dim(config: Config) -> int:
    return config.get("head_dim", config["hidden_size"] // config["num_heads"])


_DELTA_SETTINGS = renamed(
    {
        "num_heads": "num_heads",
        "norm_epsilon": "norm_eps",
        "negative_eigenvalues": "allow_neg_eigval",
    },
    short_convolution=lambda config: config["conv_size"] if config.get("use_short_conv", True) else 0,
    head_dim=_head_dim,
    value_head_dim=lambda config: int(_head_dim(config) * config.get("expand_v", 1)),
    value_heads_per_key=lambda config: config.get("num_v_heads", config["num_heads"]) // config["num_heads"],
)


def _delta_state(state: Tree) -> dict[str, Tensor]:
    memory = state["memory"]
    if state.get("inputs") is None:
        return {"S": memory}
    values = memory.shape[1] * memory.shape[3]
    keys = (state["inputs"].shape[-1] - values) // 2
    query, key, value = tails(state["inputs"], (keys, keys, values))
    return {"S": memory, "conv_q": query, "conv_k": key, "conv_v": value}


def _with_gate(config: Config) -> dict[str, Any]:
    return _DELTA_SETTINGS(config) | {"output_gate": config["use_gate"]}


def _with_floor(config: Config) -> dict[str, Any]:
    return _DELTA_SETTINGS(config) | {"log_decay_floor": config["lower_bound"] if config.get("safe_gate") else 0.0}


def _routed(config: Config) -> dict[str, Any]:
    names = {"num_memories": "num_memories", "memories_per_token": "topk", "shared_memory": "shared_mem"}
    return _DELTA_SETTINGS(config) | renamed({**names, "shared_projections": "single_kv_proj"})(config)


def _run_routed(module: Any, inputs: Mapping[str, Tensor], state: Tree, seen: int) -> tuple[Tensor, Tree]:
    """As any mixer, with the memories that tokens are routed to apart from the shared one."""
    routed = module.settings.num_memories
    together = state and {name: torch.cat((part, state["shared"][name]), dim=1) for name, part in state["mem"].items()}
    output, carried = run_mixer(module, inputs, together, seen)
    apart = {"mem": slice(routed), "shared": slice(routed, None)}
    return output, {kind: {name: part[:, own] for name, part in carried.items()} for kind, own in apart.items()}


def _routed_state(state: Tree) -> dict[str, Tensor]:
    each = {
        kind: [_delta_state({name: part[:, memory] for name, part in parts.items()}) for memory in range(count)]
        for kind, parts in state.items()
        if (count := parts["memory"].shape[1]) > 0
    }
    routed = {f"{name}_mem": torch.stack([own[name] for own in each["mem"]]) for name in each["mem"][0]}
    return routed | {f"{name}_shared": part for own in each.get("shared", ()) for name, part in own.items()}


DELTA_SYSTEMS = (
    System("delta_net", DeltaNetPlugin, _with_gate, _delta_state),
    System("gated_deltanet", GatedDeltaNetPlugin, _DELTA_SETTINGS, _delta_state),
    System("mom", MixtureOfMemoriesPlugin, _routed, _routed_state, run=_run_routed),
    System("kda", KimiDeltaAttentionPlugin, _with_floor, _delta_state),
)
