"""A request resolved into everything that decides a run's numbers, and the identity that follows from it."""

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import seqbench
from seqbench.accounting.matching import match_parameters, require_unsolved
from seqbench.accounting.size_budget import TOLERANCE, Match, ParameterBudget
from seqbench.contracts import ModelPlugin, TaskPlugin, TaskPreset, with_settings
from seqbench.contracts.suggestions import did_you_mean
from seqbench.errors import RequestError
from seqbench.planning.changes import require_owners, sort_changes
from seqbench.planning.initial_weights import InitialWeights, find_initial_weights
from seqbench.planning.request import RunRequest
from seqbench.planning.task_data import config_identity, make_task
from seqbench.plugins.kernels import asked_paths, check_request
from seqbench.plugins.registry import find_model, find_task
from seqbench.store.identity import hash_of
from seqbench.surroundings.variables import refuse_variables
from seqbench.training.budget import TrainingBudget
from seqbench.training.settings import TrainerSettings

# File systems take 255 bytes; a hash, and what names a folder that is being made or removed, follow.
_LONGEST_SLUG = 200

# Behind an ablation's name: the model is trained whole and tested without the part.
AT_EVALUATION = "@eval"

# The solver builds a model some twenty times; a grid asks for the same size for every seed.
_MATCHES: dict[Any, Match] = {}


@dataclass(frozen=True)
class RunPlan:
    """Everything resolved: the plugins, their configs, and how to train.

    Attributes:
        model_name, task_name: as the user named them.
        model_config: of the model that is trained.
        tested_config: of the model that is tested; another one for an ablation at evaluation alone.
        ablation: its name, with "@eval" behind it for evaluation alone; None for the whole model.
        initial_weights: what training starts from; None for random weights.
        budget: what ends training.
        parameter_budget, match: the size asked for, and what the solver found for the whole model; None where the
            preset decides.
        split: what the trained model is measured on.
        kernels: the request for paths of kernels, checked; "" for none.
        threads: that the CPU was asked to compute with; None for torch's choice.
        allow_unchecked: whether a model that fails a clause that scores rest on is run all the same, and marked.
        remarks: what was decided for the user, to be told when the command is carried out.
        compiled: whether training steps go through torch.compile.
        identity: plain data that decides the run's numbers; see `run_hash`.
    """

    model_name: str
    task_name: str
    model: ModelPlugin[Any]
    model_config: Any
    tested_config: Any
    task: TaskPlugin[Any]
    trainer: TrainerSettings
    ablation: str | None
    seed: int
    device: torch.device
    precision: str
    initial_weights: InitialWeights | None
    budget: TrainingBudget
    parameter_budget: ParameterBudget | None
    match: Match | None
    split: str
    kernels: str = ""
    threads: int | None = None
    allow_unchecked: bool = False
    remarks: tuple[str, ...] = ()
    compiled: bool = False

    @property
    def label(self) -> str:
        """The model's name as shown in tables."""
        return f"{self.model_name} ({self.ablation})" if self.ablation else self.model_name

    @property
    def trained(self) -> "RunPlan":
        """The run whose trained model this one tests: itself, unless it is an ablation at evaluation alone."""
        if not (self.ablation or "").endswith(AT_EVALUATION):
            return self
        return dataclasses.replace(self, ablation=None, tested_config=self.model_config)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the numbers. The commit, and the place where data lies, are recorded with a run but are no part
        of it. Kernels and threads decide rounding alone and are none either, except where time is the budget: there
        they decide how far training gets.
        """
        data, checkpoint = self.task.data_identity(), self.model.checkpoint_sha256()
        resolved = dict(self.model.resolved_config(self.model_config))
        return {
            "core": seqbench.__version__,
            "model": {
                "name": self.model_name,
                "version": self.model.version,
                "ablation": self.ablation,
                "config": dataclasses.asdict(self.model_config),
                "tested_config": dataclasses.asdict(self.tested_config),
                "initial_weights": self.initial_weights.sha256 if self.initial_weights else checkpoint,
                **({"resolved_config": resolved} if resolved else {}),
            },
            "task": {
                "name": self.task_name,
                "version": self.task.version,
                "config": config_identity(self.task),
                **({"data": data} if data else {}),
            },
            "trainer": dataclasses.asdict(self.trainer),
            "budget": dataclasses.asdict(self.budget),
            "parameter_budget": None if self.parameter_budget is None else dataclasses.asdict(self.parameter_budget),
            "split": self.split,
            "seed": self.seed,
            "precision": self.precision,
            "device": self.device.type,
            # A compiled model draws its dropout from another generator, so that more than rounding may differ.
            **({"compiled": True} if self.compiled else {}),
            **({"speed": self._speed} if self.budget.kind == "seconds" and self._speed else {}),
        }

    @property
    def _speed(self) -> dict[str, Any]:
        """What was asked for that makes steps faster or slower."""
        return {
            **({"kernels": self.kernels} if self.kernels else {}),
            **({"threads": self.threads} if self.threads else {}),
        }

    @property
    def run_hash(self) -> str:
        """The identity's `hash_of`."""
        return hash_of(self.identity)

    @property
    def folder_name(self) -> str:
        """<task>/<model>-<hash8>, with characters that no file system minds."""
        name = f"{self.model_name}-{self.ablation}" if self.ablation else self.model_name
        return f"{slug(self.task_name)}/{slug(name)}-{self.run_hash[:8]}"


def resolve(request: RunRequest) -> RunPlan:
    """Look everything up and check it. Raises RequestError for the first thing that is wrong."""
    refuse_variables()
    model, task_class = find_model(request.model), find_task(request.task)
    initial_weights = None if request.init is None else find_initial_weights(request.init, model)
    model_preset, task_preset = _choose_presets(request, model, task_class)
    changes = sort_changes(request.changes)
    require_owners(changes, {"model": model.config_class, "task": task_class.config_class, "trainer": TrainerSettings})
    task_config = with_settings(task_preset.config, changes["task"], f"task {request.task}")
    task = make_task(task_class, task_config, model.tokenizer())
    vocabulary_change = changes["model"].pop("vocab_size", None)
    if vocabulary_change is not None:
        raise RequestError(
            f"model.vocab_size follows from the task ({task.vocab_size} for {request.task}); change the task's fields"
        )
    if initial_weights is None:
        preset = model.with_vocabulary(model.presets[model_preset], task.vocab_size)
        model_config = model.with_training_length(preset, task.longest_sequence) if task.trains else preset
    else:
        model_config = _adopt(request, initial_weights, task.vocab_size)
    model_config = with_settings(model_config, changes["model"], f"model {request.model}")
    parameter_budget, match = _parameter_budget(request), None
    if parameter_budget is not None:
        require_unsolved(model, changes["model"])
        match = _match(request, model, model_config, parameter_budget)
        model_config = match.config
    ablation, model_config, tested_config = _apply_ablation(request, model, model_config)
    if task.trains:
        _require_length(request.model, model.longest_sequence(model_config), task.longest_sequence)
    trainer, remarks = _trainer_settings(request, task, task_preset, changes["trainer"])
    if trainer.steps == 0 and "steps" not in changes["trainer"]:
        _require_weights(request, model)
    device, kernels = choose_device(request.device), asked_paths(request.kernels)
    check_request(kernels, device)
    return RunPlan(
        model_name=request.model,
        task_name=request.task,
        model=model,
        model_config=model_config,
        tested_config=tested_config,
        task=task,
        trainer=trainer,
        ablation=ablation,
        seed=request.seed,
        device=device,
        precision=request.precision,
        initial_weights=initial_weights,
        budget=_training_budget(request, trainer, changes["trainer"]),
        parameter_budget=parameter_budget,
        match=match,
        split=request.split,
        kernels=kernels,
        threads=request.threads,
        allow_unchecked=request.allow_unchecked,
        remarks=remarks,
        compiled=request.compiled,
    )


def ablation_names(model: ModelPlugin[Any]) -> list[str]:
    """Everything that `--ablate` takes for a model."""
    names = []
    for name, ablation in model.ablations.items():
        names += [name] * ablation.in_training + [name + AT_EVALUATION] * ablation.at_evaluation
    return names


def choose_device(name: str) -> torch.device:
    """The device called "auto", "cpu" or "cuda". Raises RequestError when it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise RequestError("--device cuda: torch sees no CUDA device here; type --device cpu, or leave it out")
    return torch.device(name)


def slug(name: str) -> str:
    """`name` with every run of characters other than letters, digits, dot, dash and underscore turned into one dash.

    Of a name that is too long for a folder, the beginning.
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:_LONGEST_SLUG].strip("-.") or "unnamed"


def _choose_presets(
    request: RunRequest, model: ModelPlugin[Any], task_class: type[TaskPlugin[Any]]
) -> tuple[str, TaskPreset[Any]]:
    for name in request.presets:
        if name not in model.presets and name not in task_class.presets:
            known = [*model.presets, *task_class.presets]
            raise RequestError(
                f"unknown preset {name!r}{did_you_mean(name, known)}\n"
                f"presets of model {request.model}: {', '.join(model.presets)}; "
                f"of task {request.task}: {', '.join(task_class.presets)}"
            )
        if request.init is not None and name not in task_class.presets:
            raise RequestError(f"--preset {name} is one of the model's, whose shape follows from --init; leave it out")
    model_preset = _preset_of(f"model {request.model}", request.presets, model.presets, task_class.presets)
    task_preset = _preset_of(f"task {request.task}", request.presets, task_class.presets, model.presets)
    return model_preset or model.default_preset, task_class.presets[task_preset or task_class.default_preset]


def _preset_of(owner: str, names: Sequence[str], own: Collection[str], others: Collection[str]) -> str | None:
    """The one of `names` that is meant for this owner: one that it alone has before one that the other has too."""
    alone = [name for name in dict.fromkeys(names) if name in own and name not in others]
    meant = alone or [name for name in dict.fromkeys(names) if name in own]
    if len(meant) > 1:
        raise RequestError(f"--preset {' and --preset '.join(meant)} are both presets of {owner}; type one of them")
    return meant[0] if meant else None


def _adopt(request: RunRequest, weights: InitialWeights, vocab_size: int) -> Any:
    """The checkpoint's own settings, once its vocabulary is known to hold the task's."""
    known = weights.settings.vocab_size
    if known < vocab_size:
        raise RequestError(
            f"--init {request.init} knows {known:,} token ids and task {request.task} has {vocab_size:,}; choose a"
            " checkpoint with a vocabulary of that size or more"
        )
    return weights.settings


def _parameter_budget(request: RunRequest) -> ParameterBudget | None:
    if request.parameters is not None and request.parameters_total is not None:
        raise RequestError("give --params or --params-total, not both")
    target = request.parameters or request.parameters_total
    if target is not None and request.init is not None:
        raise RequestError("the size of the model follows from --init; leave --params out")
    return None if target is None else ParameterBudget(target, total=request.parameters is None)


def _match(request: RunRequest, model: ModelPlugin[Any], config: Any, budget: ParameterBudget) -> Match:
    """The config of the wanted size. Raises RequestError when it is missed and that was not allowed."""
    key = (request.model, config, budget)
    if key not in _MATCHES:
        _MATCHES[key] = match_parameters(model, config, budget)
    match = _MATCHES[key]
    if not match.matched and not request.allow_unmatched:
        raise RequestError(
            f"model {request.model} comes no nearer to {budget.target:,} parameters than {match.achieved:,}"
            f" ({match.deviation:+.1%}, tolerance {TOLERANCE:.0%}); type --allow-unmatched to compare it all the same,"
            " marked in every table, or choose another budget"
        )
    return match


def _require_length(name: str, allowed: int | None, longest: int) -> None:
    """Raise RequestError where training may have longer sequences than the model takes."""
    if allowed is not None and longest > allowed:
        raise RequestError(
            f"model {name} takes sequences of at most {allowed:,} tokens, and the task trains on up to {longest:,};"
            f" change that setting of the model (bench show {name}), or the task's lengths"
        )


def _require_weights(request: RunRequest, model: ModelPlugin[Any]) -> None:
    """Raise RequestError where a task, or a preset, that only measures would measure random weights."""
    if request.init is None and model.checkpoint_sha256() is None:
        raise RequestError(
            f"task {request.task} trains nothing here, and model {request.model} would have random weights; name a"
            " trained one with --init (the folder of a run or of a checkpoint, or a hub id)"
        )


def _trainer_settings(
    request: RunRequest, task: TaskPlugin[Any], preset: TaskPreset[Any], changes: Mapping[str, str]
) -> tuple[TrainerSettings, tuple[str, ...]]:
    if task.trains:
        return _with_fitting_warm_up(dataclasses.replace(TrainerSettings(), **preset.trainer), changes)
    if changes or request.budget_kind is not None:
        given = f"--set {next(iter(changes))}" if changes else f"--{request.budget_kind}"
        raise RequestError(f"task {request.task} trains nothing; leave {given} out")
    return TrainerSettings(steps=0, warmup_steps=0), ()


def _with_fitting_warm_up(
    preset: TrainerSettings, changes: Mapping[str, str]
) -> tuple[TrainerSettings, tuple[str, ...]]:
    """The preset's settings with the changes, and what is to be told: fewer steps have a shorter warm-up.

    It shrinks in proportion, unless the changes name it.
    """
    if "warmup_steps" in changes or "steps" not in changes:
        return with_settings(preset, changes, "the trainer"), ()
    # With no warm-up, no number of steps is too small to be looked at.
    steps = with_settings(dataclasses.replace(preset, warmup_steps=0), changes, "the trainer").steps
    if not 0 < steps < preset.steps:
        return with_settings(preset, changes, "the trainer"), ()
    warm_up = min(steps - 1, round(preset.warmup_steps * steps / preset.steps))
    settings = with_settings(preset, {**changes, "warmup_steps": f"{warm_up}"}, "the trainer")
    if warm_up == preset.warmup_steps:
        return settings, ()
    return settings, (
        f"warmup_steps is {warm_up} for {steps:,} steps, in proportion to {preset.warmup_steps:,} for"
        f" {preset.steps:,}; --set warmup_steps=N sets it",
    )


def _training_budget(request: RunRequest, trainer: TrainerSettings, changes: Mapping[str, str]) -> TrainingBudget:
    if request.budget_kind is None or request.budget_target is None:
        return TrainingBudget("steps", trainer.steps)
    if "steps" in changes:
        raise RequestError(
            f"--{request.budget_kind} ends training, and so would steps={changes['steps']}; leave one of them out"
        )
    return TrainingBudget(request.budget_kind, request.budget_target)


def _apply_ablation(request: RunRequest, model: ModelPlugin[Any], config: Any) -> tuple[str | None, Any, Any]:
    """The ablation's full name, and the configs of the model that is trained and of the one that is tested."""
    if request.ablation is None:
        return None, config, config
    name = request.ablation.removesuffix(AT_EVALUATION)
    if name not in model.ablations:
        raise RequestError(
            f"model {request.model} has no ablation {name!r}{did_you_mean(name, model.ablations)}\n"
            f"its ablations are: {', '.join(ablation_names(model)) or 'none'}"
        )
    ablation = model.ablations[name]
    changed = dataclasses.replace(config, **ablation.changes)
    if request.ablation == name and ablation.in_training:
        return name, changed, changed
    if not ablation.at_evaluation:
        raise RequestError(
            f"ablation {name} of model {request.model} cannot be applied at evaluation alone; type --ablate {name}"
        )
    return name + AT_EVALUATION, config, changed
