"""Checkpoints: safetensors and JSON only, complete or absent, nothing that unpickles code."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from seqbench.errors import RunFailure

_MODEL, _OPTIMIZERS, _RANDOM, _STATE = "model.safetensors", "optimizers.safetensors", "random.safetensors", "state.json"


def save_checkpoint(
    folder: Path, step: int, model: nn.Module, optimizers: list[torch.optim.Optimizer], state: dict[str, Any]
) -> Path:
    """Write checkpoint `step` under `folder` and remove older ones.

    Everything goes to a temporary folder which is renamed when it is complete and on the disk; the checkpoint before it
    is removed only afterwards.
    """
    final = folder / f"step-{step:08d}"
    temporary = folder / f".{final.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_model(model, str(temporary / _MODEL))
    tensors, plain = _flatten_optimizers(optimizers)
    save_file(tensors, str(temporary / _OPTIMIZERS))
    save_file(_random_states(), str(temporary / _RANDOM))
    (temporary / _STATE).write_text(json.dumps({**state, "step": step, "optimizers": plain}))
    for path in [*temporary.iterdir(), temporary]:
        _flush(path)
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    _flush(folder)
    # What an interrupted write left behind goes too.
    for other in [*list_checkpoints(folder), *folder.glob(".step-*.tmp")]:
        if other != final:
            shutil.rmtree(other)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first; what an interrupted write left behind is not among them."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def load_checkpoint(path: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Any]:
    """Restore weights, optimizers and random generators in place; returns the plain state that was saved.

    Raises RunFailure("corrupt-checkpoint") naming the file that cannot be read.
    """
    name = _STATE
    try:
        state = json.loads((path / name).read_text())
        plain = state.pop("optimizers")
        name = _MODEL
        load_model(model, path / name)
        name = _OPTIMIZERS
        _restore_optimizers(optimizers, load_file(path / name), plain)
        name = _RANDOM
        _restore_random_states(load_file(path / name))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise RunFailure(
            "corrupt-checkpoint",
            f"{path / name} cannot be read: {error}\nremove the folder {path} and type the command with"
            " --retry-failed to start from the beginning",
        ) from error
    return state


def _flatten_optimizers(optimizers: list[torch.optim.Optimizer]) -> tuple[dict[str, Tensor], list[Any]]:
    """Tensors under names "<optimizer>.<parameter>.<entry>"; everything else as plain data."""
    tensors: dict[str, Tensor] = {}
    plain = []
    for number, optimizer in enumerate(optimizers):
        scalars: dict[str, Any] = {}
        for index, entries in optimizer.state_dict()["state"].items():
            for key, value in entries.items():
                if isinstance(value, Tensor):
                    tensors[f"{number}.{index}.{key}"] = value.contiguous()
                else:
                    scalars[f"{index}.{key}"] = value
        plain.append(scalars)
    return tensors, plain


def _restore_optimizers(optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor], plain: list[Any]) -> None:
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Any]] = {}
        for name, value in [*tensors.items(), *((f"{number}.{key}", value) for key, value in plain[number].items())]:
            owner, index, key = name.split(".", 2)
            if int(owner) == number:
                state.setdefault(int(index), {})[key] = value
        # The groups (rates, decays) follow from the settings and the step, so the present ones are right.
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _random_states() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda.{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _restore_random_states(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    for name, state in states.items():
        if name.startswith("cuda.") and torch.cuda.is_available():
            torch.cuda.set_rng_state(state, int(name.removeprefix("cuda.")))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
