"""Golden files: what the code of a system's authors, or a library's, computes, and how a mixer is held against it.

A file has parameters by the authors' names, an input, the output and the state after it, a second input that continues
from there, and all gradients of L = sum(output x w). Its metadata says the hyperparameters and who computed it.
"""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from seqbench.mixers import Chunk, MixerPlugin, Tree

FOLDER = Path(__file__).parent.parent / "golden" / "zoo"
# Names a folder with further files of the same kind, of other shapes, to be met as well.
FURTHER = "SEQBENCH_GOLDEN"
# On the largest difference of two tensors, over the largest entry of the expected one where that is above 1.
TOLERANCE = 1e-4

# Some files call a sequence x and y, and others in.x and out.y; from here on all of them are of the second kind.
_SPELLINGS = (
    (re.compile(r"x(2?)"), r"in\1.x"),
    (re.compile(r"y(2?)"), r"out\1.y"),
    (re.compile(r"grad\.x"), r"grad.in.x"),
    (re.compile(r"grad\.(?!in\.|param\.)(.+)"), r"grad.param.\1"),
)


# A file's hyperparameters.
Config = Mapping[str, Any]


@dataclass(frozen=True)
class Golden:
    """A file: its hyperparameters, and its tensors by name.

    The names are param.NAME, in.NAME, out.y, w, grad.in.NAME, grad.param.NAME, state.NAME, and of the second piece
    in2.NAME, out2.y and state2.NAME.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `prefix` and a dot, by what follows it."""
        start = f"{prefix}."
        return {name.removeprefix(start): tensor for name, tensor in self.tensors.items() if name.startswith(start)}


def read(path: Path) -> Golden:
    """The file, its names all spelt in one way."""
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (the file is no dictionary)
    return Golden(config, {_respelt(name): tensor for name, tensor in tensors.items()})


def files_of(name: str) -> list[Path]:
    """The files of a system, NAME.t37.safetensors or NAME_a.safetensors, here and in the folder of $SEQBENCH_GOLDEN."""
    further = os.environ.get(FURTHER)
    folders = [FOLDER, Path(further)] if further else [FOLDER]
    own = re.compile(rf"{re.escape(name)}(\.t\d+|_[a-z])\.safetensors")
    return [path for folder in folders for path in sorted(folder.iterdir()) if own.fullmatch(path.name)]


def one_mixer(plugin: type[MixerPlugin], settings: Any, config: Config) -> nn.Module:
    """The plugin's mixer."""
    del config
    return plugin.mixer(settings.hidden_size, settings)


def run_mixer(module: nn.Module, inputs: Mapping[str, Tensor], state: Tree, seen: int) -> tuple[Tensor, Tree]:
    """Output and state of a mixer for the input x, with the token ids where the file has any."""
    hidden = inputs["x"]
    ids = inputs.get("ids", torch.zeros(hidden.shape[:2], dtype=torch.int64))
    before = torch.full((hidden.shape[0],), seen, dtype=torch.int64)
    output, state, *_ = module(hidden, state, Chunk(ids, before, None))
    return output, state


@dataclass(frozen=True)
class System:
    """One line of the table: how a system's mixer is made and read.

    Attributes:
        name: what its files are called.
        plugin: whose mixer it is.
        settings: a file's hyperparameters -> the plugin's settings; hidden_size is that of the input.
        state: what the mixer carries -> the tensors of state.NAME, as the file lays them out.
        module: plugin, settings and a file's hyperparameters -> the module it describes, where that is not one mixer.
        run: calls it with the inputs, the state, and the number of tokens before, where that is not one mixer.
        differentiated: the inputs that have gradients.
        file_state: hyperparameters and the tensors of state.NAME -> what a mixer carries of them, where that is less.
    """

    name: str
    plugin: type[MixerPlugin]
    settings: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    state: Callable[[Tree], Mapping[str, Tensor]]
    module: Callable[[type[MixerPlugin], Any, Config], nn.Module] = one_mixer
    run: Callable[[Any, Mapping[str, Tensor], Tree, int], tuple[Tensor, Tree]] = run_mixer
    differentiated: Sequence[str] = ("x",)
    file_state: Callable[[Config, dict[str, Tensor]], dict[str, Tensor]] = lambda config, tensors: tensors

    def build(self, golden: Golden) -> nn.Module:
        """The module with the file's parameters; every name of one is a name of the other."""
        width = golden.tensors["in.x"].shape[-1]
        settings = self.plugin.config_class(**{"hidden_size": width, **self.settings(golden.config)})
        module = self.module(self.plugin, settings, golden.config)
        module.load_state_dict(golden.part("param"), strict=True)
        return module


def tails(inputs: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Carried inputs of short convolutions, (batch, places, channels), apart and laid out (batch, channels, places)."""
    return [tail.transpose(1, 2) for tail in inputs.split(list(sizes), dim=-1)]


def errors(system: System, golden: Golden) -> dict[str, float]:
    """The largest error of each kind: of output, state, continuation and gradients, as far as the file has them."""
    module = system.build(golden)
    inputs = {
        name: tensor.clone().requires_grad_(name in system.differentiated) for name, tensor in golden.part("in").items()
    }
    output, state = system.run(module, inputs, None, 0)
    (output * golden.tensors["w"]).sum().backward()
    gradients = {f"param.{name}": parameter.grad for name, parameter in module.named_parameters()}
    gradients |= {f"in.{name}": inputs[name].grad for name in system.differentiated}
    found = {
        "output": _error({"y": output}, golden.part("out")),
        "gradients": _error(gradients, {name: golden.tensors[f"grad.{name}"] for name in gradients}),
    }
    if golden.part("state"):
        found["state"] = _error(system.state(state), system.file_state(golden.config, golden.part("state")))
    if golden.part("in2"):
        with torch.no_grad():
            output, state = system.run(module, golden.part("in2"), state, golden.tensors["in.x"].shape[1])
        found["continuation"] = _error({"y": output}, golden.part("out2"))
        if golden.part("state2"):
            found["continued state"] = _error(
                system.state(state), system.file_state(golden.config, golden.part("state2"))
            )
    return found


def _error(actual: Mapping[str, Tensor | None], expected: Mapping[str, Tensor]) -> float:
    """Of the worst tensor; the names have to be the same."""
    assert actual.keys() == expected.keys(), f"{sorted(actual)} where the file has {sorted(expected)}"
    return max(_difference(name, actual[name], expected[name]) for name in expected)


def _difference(name: str, actual: Tensor | None, expected: Tensor) -> float:
    assert actual is not None, f"{name} has no gradient"
    assert actual.shape == expected.shape, f"{name} is {tuple(actual.shape)}, in the file {tuple(expected.shape)}"
    scale = max(1.0, expected.abs().max().item())
    difference = (actual.detach().double() - expected.double()).abs().max().item() / scale
    # What is no number is no agreement, and max() may pass over it.
    return float("inf") if difference != difference else difference


def _respelt(name: str) -> str:
    for pattern, spelling in _SPELLINGS:
        if pattern.fullmatch(name):
            return pattern.sub(spelling, name)
    return name
