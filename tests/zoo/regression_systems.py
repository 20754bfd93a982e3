"""Systems that solve a regression for every token."""

from typing import Any

from golden_files import Config, System
from torch import Tensor

from seqbench.mixers import Tree
from seqbench_baselines.regression.parallax import ParallaxPlugin


def _parallax(config: Config) -> dict[str, Any]:
    names = {"num_heads": "num_heads", "num_key_value_heads": "num_kv_heads", "head_dim": "head_dim"}
    names |= {"qk_norm": "qk_norm", "qkv_bias": "qkv_bias", "rope_theta": "rope_theta", "norm_epsilon": "norm_eps"}
    return {setting: config[name] for setting, name in names.items()} | {"window": config["window_size"] or 0}


def _keys_and_values(state: Tree) -> dict[str, Tensor]:
    return {name: tensor.transpose(1, 2).flatten(2) for name, tensor in zip("kv", state, strict=True)}


def _inside_window(config: Config, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the next token still sees; a file may have more."""
    window = config["window_size"]
    return {name: tensor if window is None else tensor[:, 1 - window :] for name, tensor in tensors.items()}


REGRESSION_SYSTEMS = (System("parallax", ParallaxPlugin, _parallax, _keys_and_values, file_state=_inside_window),)
