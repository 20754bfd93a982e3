"""A request resolved into everything that decides a run's numbers, and the identity that follows from it."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

import seqbench
from seqbench.contracts import ModelPlugin, TaskPlugin, TaskPreset, with_settings
from seqbench.errors import RequestError
from seqbench.registry import find_model, find_task
from seqbench.request import RunRequest
from seqbench.suggestions import did_you_mean
from seqbench.training.settings import TrainerSettings


@dataclass(frozen=True)
class RunPlan:
    """Everything resolved: the plugins, their configs, and how to train.

    Attributes:
        model_name, task_name: as the user named them.
        identity: plain data that decides the run's numbers; see `run_hash`.
    """

    model_name: str
    task_name: str
    model: ModelPlugin[Any]
    model_config: Any
    task: TaskPlugin[Any]
    trainer: TrainerSettings
    ablation: str | None
    seed: int
    device: torch.device
    precision: str

    @property
    def label(self) -> str:
        """The model's name as shown in tables."""
        return f"{self.model_name} ({self.ablation})" if self.ablation else self.model_name

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the numbers. The commit is recorded with a run but is no part of it."""
        return {
            "core": seqbench.__version__,
            "model": {
                "name": self.model_name,
                "version": self.model.version,
                "ablation": self.ablation,
                "config": dataclasses.asdict(self.model_config),
            },
            "task": {
                "name": self.task_name,
                "version": self.task.version,
                "config": dataclasses.asdict(self.task.config),
            },
            "trainer": dataclasses.asdict(self.trainer),
            "seed": self.seed,
            "precision": self.precision,
            "device": self.device.type,
        }

    @property
    def run_hash(self) -> str:
        """SHA-256 of the identity in canonical JSON, as 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        """<task>/<model>-<hash8>, with characters that no file system minds."""
        name = f"{self.model_name}-{self.ablation}" if self.ablation else self.model_name
        return f"{slug(self.task_name)}/{slug(name)}-{self.run_hash[:8]}"


def resolve(request: RunRequest) -> RunPlan:
    """Look everything up and check it. Raises RequestError for the first thing that is wrong."""
    model, task_class = find_model(request.model), find_task(request.task)
    model_preset, task_preset = _choose_presets(request, model, task_class)
    changes = _sort_changes(request.changes)
    task_config = with_settings(task_preset.config, changes["task"], f"task {request.task}")
    task = task_class(task_config)
    vocabulary_change = changes["model"].pop("vocab_size", None)
    if vocabulary_change is not None:
        raise RequestError(
            f"model.vocab_size follows from the task ({task.vocab_size} for {request.task}); change the task's fields"
        )
    model_config = model.with_vocabulary(model.presets[model_preset], task.vocab_size)
    model_config = with_settings(model_config, changes["model"], f"model {request.model}")
    if request.ablation is not None:
        model_config = _apply_ablation(request, model, model_config)
    trainer = with_settings(
        dataclasses.replace(TrainerSettings(), **task_preset.trainer), changes["trainer"], "the trainer"
    )
    return RunPlan(
        model_name=request.model,
        task_name=request.task,
        model=model,
        model_config=model_config,
        task=task,
        trainer=trainer,
        ablation=request.ablation,
        seed=request.seed,
        device=_choose_device(request.device),
        precision=request.precision,
    )


def slug(name: str) -> str:
    """`name` with every run of characters other than letters, digits, dot, dash and underscore turned into one dash."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unnamed"


def _choose_presets(
    request: RunRequest, model: ModelPlugin[Any], task_class: type[TaskPlugin[Any]]
) -> tuple[str, TaskPreset[Any]]:
    model_preset, task_preset = model.default_preset, task_class.default_preset
    for name in request.presets:
        if name not in model.presets and name not in task_class.presets:
            known = [*model.presets, *task_class.presets]
            raise RequestError(
                f"unknown preset {name!r}{did_you_mean(name, known)}\n"
                f"presets of model {request.model}: {', '.join(model.presets)}; "
                f"of task {request.task}: {', '.join(task_class.presets)}"
            )
        model_preset = name if name in model.presets else model_preset
        task_preset = name if name in task_class.presets else task_preset
    return model_preset, task_class.presets[task_preset]


def _sort_changes(changes: Mapping[str, str]) -> dict[str, dict[str, str]]:
    sorted_changes: dict[str, dict[str, str]] = {"model": {}, "task": {}, "trainer": {}}
    for key, text in changes.items():
        owner, dot, field = key.partition(".")
        if not dot:
            owner, field = "trainer", key
        if owner not in sorted_changes:
            raise RequestError(
                f"--set {key}={text}: a key is model.FIELD, task.FIELD or a field of the trainer, not {owner!r}.FIELD"
            )
        if field in sorted_changes[owner]:
            raise RequestError(f"--set {field} and {owner}.{field} are the same field; give it once")
        sorted_changes[owner][field] = text
    return sorted_changes


def _apply_ablation(request: RunRequest, model: ModelPlugin[Any], model_config: Any) -> Any:
    name = request.ablation or ""
    if name not in model.ablations:
        raise RequestError(
            f"model {request.model} has no ablation {name!r}{did_you_mean(name, model.ablations)}\n"
            f"its ablations are: {', '.join(model.ablations) or 'none'}"
        )
    return dataclasses.replace(model_config, **model.ablations[name].changes)


def _choose_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise RequestError("--device cuda: torch sees no CUDA device here; type --device cpu, or leave it out")
    return torch.device(name)
