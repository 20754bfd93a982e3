"""Checkpoints: safetensors and JSON only, complete or absent, nothing that unpickles code."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from seqbench.errors import RequestError
from seqbench.store.checksums import CHECKSUMS, checksums, damaged_files
from seqbench.store.damage import DamagedFile, set_aside
from seqbench.store.files import remove_folder, write_folder_atomically
from seqbench.store.forms import CHECKPOINT
from seqbench.store.reader import read_json

SCHEMA = 1

# A damaged newest checkpoint costs one interval and not all of the training.
KEPT = 2

_MODEL, _OPTIMIZERS, _RANDOM, _STATE = "model.safetensors", "optimizers.safetensors", "random.safetensors", "state.json"
_FILES = (_MODEL, _OPTIMIZERS, _RANDOM, _STATE)
_NAME = re.compile(r"step-(\d{8,})")


def save_checkpoint(
    folder: Path, step: int, model: nn.Module, optimizers: list[torch.optim.Optimizer], state: dict[str, Any]
) -> Path:
    """Write checkpoint `step` under `folder`; the newest two stay.

    It takes its name when it is complete and on the disk. SHA256SUMS in it tells later whether a byte has changed,
    which safetensors does not.
    """

    def fill(temporary: Path) -> None:
        save_model(model, str(temporary / _MODEL))
        tensors, plain = _flatten_optimizers(optimizers)
        save_file(tensors, str(temporary / _OPTIMIZERS))
        save_file(random_states(), str(temporary / _RANDOM))
        content = {"schema": SCHEMA, "optimizers": plain, "state": {**state, "step": step}}
        (temporary / _STATE).write_text(json.dumps(content), encoding="utf-8")
        (temporary / CHECKSUMS).write_text(checksums(temporary, _FILES), encoding="utf-8")

    final = folder / f"step-{step:08d}"
    write_folder_atomically(final, fill)
    keep_newest(folder, KEPT)
    return final


def keep_newest(folder: Path, number: int) -> None:
    """Remove all checkpoints but the newest `number`."""
    for path in list_checkpoints(folder)[:-number]:
        remove_folder(path)


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints, oldest first; neither what an interrupted write left behind nor what was set aside is among them."""
    found = {path: _NAME.fullmatch(path.name) for path in folder.glob("step-*") if path.is_dir()}
    return sorted((path for path, match in found.items() if match), key=step_of)


def step_of(checkpoint: Path) -> int:
    """How many steps were done when it was saved."""
    return int(checkpoint.name.removeprefix("step-"))


def damaged_checkpoints(folder: Path) -> Iterator[DamagedFile]:
    """Whatever in the checkpoints under `folder` is not as it was written."""
    for path in sorted(folder.glob("step-*")):
        if _NAME.fullmatch(path.name):
            if path.is_dir():
                yield from damaged_files(path, _FILES)
            else:
                yield DamagedFile(path, "it is no folder")


def restore_newest(folder: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Any] | None:
    """Load the newest checkpoint that is whole, in place; returns its plain state, or None when there is none.

    A damaged one is named on standard error and set aside; nothing of it is loaded. Raises RequestError as
    `load_checkpoint` does.
    """
    for path in folder.glob("step-*"):
        if _NAME.fullmatch(path.name) and not path.is_dir():
            set_aside(path, path, "it is no folder")
    for path in reversed(list_checkpoints(folder)):
        damage = next(damaged_files(path, _FILES), None)
        if damage is None:
            return load_checkpoint(path, model, optimizers)
        set_aside(path, damage.path, damage.why)
    return None


def load_checkpoint(path: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Any]:
    """Restore weights, optimizers and random generators in place; returns the plain state that was saved.

    Raises RequestError for a checkpoint of a newer version, and for one of another model.
    """
    name = _STATE
    try:
        content = read_json(path / name, CHECKPOINT)
        if content["schema"] != SCHEMA:
            raise RequestError(
                f"{path} has schema {content['schema']} and this version of seqbench knows {SCHEMA}; install the"
                " version that wrote it"
            )
        name = _MODEL
        load_model(model, path / name)
        name = _OPTIMIZERS
        _restore_optimizers(optimizers, load_file(path / name), content["optimizers"])
        name = _RANDOM
        restore_random_states(load_file(path / name))
        return content["state"]
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise RequestError(
            f"{path / name} is whole and does not fit the model that is installed now: {error}\n"
            "its code was changed without a new version: raise the plugin's `version`, or remove the run with"
            " `bench runs --remove`"
        ) from error


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


def random_states() -> dict[str, Tensor]:
    """Of torch's generators, by device."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda.{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_random_states(states: dict[str, Tensor]) -> None:
    """Have torch's generators stand where they stood."""
    torch.set_rng_state(states["cpu"])
    for name, state in states.items():
        if name.startswith("cuda.") and torch.cuda.is_available():
            torch.cuda.set_rng_state(state, int(name.removeprefix("cuda.")))
