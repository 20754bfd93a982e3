"""The table of systems that golden files are held against, family by family: one line each."""

from classical_systems import CLASSICAL_SYSTEMS
from decaying_systems import DECAYING_SYSTEMS
from delta_systems import DELTA_SYSTEMS
from phase_systems import PHASE_SYSTEMS
from golden_files import Config, System, tails
from regression_systems import REGRESSION_SYSTEMS
from torch import Tensor
from seqbench.mixers import Tree
from seqbench_baselines.delta_rule.delta_net import DeltaNetPlugin
from seqbench_baselines.delta_rule.gated_deltanet import GatedDeltaNetPlugin
from seqbench_baselines.delta_rule.kda import KimiDeltaAttentionPlugin
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
        "short_convolution": "conv_size",
        "norm_epsilon": "norm_eps",
        "negative_eigenvalues": "allow_neg_eigval",
    },
    head_dim=_head_dim,
    value_head_dim=lambda config: int(_head_dim(config) * config.get("expand_v", 1)),
    value_heads_per_key=lambda config: config.get("num_v_heads", config["num_heads"]) // config["num_heads"],
)
def _delta_state(state: Tree) -> dict[str, Tensor]:
    memory = state["memory"]
    values = memory.shape[1] * memory.shape[3]
    keys = (state["inputs"].shape[-1] - values) // 2
    query, key, value = tails(state["inputs"], (keys, keys, values))
    return {"S": memory, "conv_q": query, "conv_k": key, "conv_v": value}
def _with_gate(config: Config) -> dict[str, Any]:
    return _DELTA_SETTINGS(config) | {"output_gate": config["use_gate"]}
def _with_floor(config: Config) -> dict[str, Any]:
    return _DELTA_SETTINGS(config) | {"log_decay_floor": config["lower_bound"] if config.get("safe_gate") else 0.0}

SYSTEMS = (
    *DELTA_SYSTEMS,
    *DECAYING_SYSTEMS,
    *CLASSICAL_SYSTEMS,
    *PHASE_SYSTEMS,
    *REGRESSION_SYSTEMS,
)
