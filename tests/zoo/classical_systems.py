"""Systems of numbers per channel: state spaces, recurrent layers, and a block whose memory nothing writes."""

from typing import Any

from golden_files import Config, System, one_mixer
from torch import Tensor, nn

from seqbench.mixers import Chunk, MixerPlugin, Tree
from seqbench_baselines.gam.plugin import GAMPlugin
from seqbench_baselines.state_spaces.lru import LRUPlugin
from seqbench_baselines.state_spaces.s4d import S4DPlugin
from seqbench_baselines.state_spaces.s5 import S5Plugin
from seqbench_baselines.urnn.plugin import URNNPlugin


class GAMBlock(nn.Module):
    """The published block around the mixer: layer norms, and a feed-forward layer with GELU."""

    def __init__(self, plugin: type[MixerPlugin], settings: Any, config: Config) -> None:
        super().__init__()
        size, inner = config["dim"], config["ffn_mult"] * config["dim"]
        # The file names the mixer's parameters beside the block's own.
        self._mixer = [one_mixer(plugin, settings, config)]
        for name, module in self._mixer[0].named_children():
            self.add_module(name, module)
        self.memory_bank = self._mixer[0].memory_bank
        self.ln1, self.ln2 = (nn.LayerNorm(size, config["ln_eps"]) for _ in range(2))
        self.ffn = nn.Sequential(nn.Linear(size, inner), nn.GELU(), nn.Linear(inner, size))

    def forward(self, hidden: Tensor, state: Tree, chunk: Chunk) -> tuple[Tensor, Tree]:
        added, state = self._mixer[0](self.ln1(hidden), state, chunk)
        hidden = hidden + added
        return hidden + self.ffn(self.ln2(hidden)), state


def _permuting(plugin: type[MixerPlugin], settings: Any, config: Config) -> nn.Module:
    """The mixer with the file's permutation, which is no parameter."""
    mixer: Any = one_mixer(plugin, settings, config)
    mixer.permutation = config["perm"]
    return mixer


def _states(config: Config) -> dict[str, Any]:
    return {"state_size": config["d_state"]}


CLASSICAL_SYSTEMS = (
    System("s4d", S4DPlugin, lambda config: {"channel_states": config["d_state"]}, lambda state: {"s": state}),
    System("s5", S5Plugin, _states, lambda state: {"s": state}),
    System("lru", LRUPlugin, _states, lambda state: {"s": state}),
    System("urnn", URNNPlugin, _states, lambda state: {"h": state}, module=_permuting),
    System(
        "gam",
        GAMPlugin,
        lambda config: {"num_slots": config["num_slots"], "conv_size": config["conv_size"]},
        lambda state: {"conv": state.transpose(1, 2)},
        module=GAMBlock,
    ),
)
