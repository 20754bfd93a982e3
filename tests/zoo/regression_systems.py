"""Systems that solve a regression for every token."""

from collections.abc import Callable
from typing import Any

from golden_files import Config, System, tails
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from seqbench.mixers import Tree
from seqbench_baselines.regression.gka import GatedKalmaNetPlugin
from seqbench_baselines.regression.local_linear import LocalLinearAttentionPlugin, local_linear_attention
from seqbench_baselines.regression.mesanet import MesaNetPlugin
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


def _recurrent(names: dict[str, str]) -> Callable[[Config], dict[str, Any]]:
    names = names | {"head_dim": "head_dim", "short_convolution": "conv_size", "norm_epsilon": "norm_eps"}
    return lambda config: {setting: config[name] for setting, name in names.items()}


def _memories(state: Tree) -> dict[str, Tensor]:
    of_keys, of_values = state["memories"]
    width = of_keys.shape[1] * of_keys.shape[2]
    convolved = tails(state["inputs"], [width] * (state["inputs"].shape[-1] // width))
    return {"H": of_keys, "U": of_values} | {f"conv_{name}": tail for name, tail in zip("qkv", convolved, strict=False)}


_MESANET = _recurrent({"num_heads": "num_heads", "output_gate": "use_output_gate"})
_GKA = _recurrent({"num_heads": "num_q_heads", "iterations": "num_iter", "ridge": "ridge_strength"})


class _Core(LazyModuleMixin, nn.Module):
    """The function alone, its arguments as parameters of the file's shapes."""

    def __init__(self, ridge: float) -> None:
        super().__init__()
        self.ridge = ridge
        self.q, self.k, self.v = (nn.UninitializedParameter() for _ in range(3))

    def attend(self) -> Tensor:
        query, key, value = (tensor.transpose(1, 2) for tensor in (self.q, self.k, self.v))
        return local_linear_attention(query, key, value, self.ridge).transpose(1, 2)


REGRESSION_SYSTEMS = (
    System("parallax", ParallaxPlugin, _parallax, _keys_and_values, file_state=_inside_window),
    System("mesanet", MesaNetPlugin, _MESANET, _memories),
    System("gka", GatedKalmaNetPlugin, _GKA, _memories),
    System(
        "lla_core",
        LocalLinearAttentionPlugin,
        lambda config: {"ridge": config["lam"]},
        _keys_and_values,
        module=lambda plugin, settings, config: _Core(settings.ridge),
        run=lambda module, inputs, state, seen: (module.attend(), None),
        differentiated=(),
    ),
)
