"""The models that are measured: looked up, sized, built and put on the device."""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, set_seed

from seqbench.accounting.counting import count_parameters, non_embedding, parameter_bytes
from seqbench.accounting.matching import match_parameters, require_unsolved
from seqbench.accounting.meta_build import build_without_memory
from seqbench.accounting.size_budget import TOLERANCE, ParameterBudget
from seqbench.contracts import ModelPlugin, with_settings
from seqbench.contracts.suggestions import did_you_mean
from seqbench.errors import RequestError
from seqbench.plugins.registry import find_model

# Token ids of every model unless a field says otherwise: 256 bytes and room for special ids. A head costs time too.
VOCABULARY = 384

# Between a model and the paths of operations that it is to take, in the name of a contestant.
PATHS_MARK = "@"


@dataclass(frozen=True)
class Subject:
    """A model as it is going to be measured.

    Attributes:
        label: as the user named it, with its paths behind "@".
        name: of its plugin.
        paths: what it asks of the operations, in the words of SEQBENCH_KERNELS; None for what the process asks for.
        plugin, config: what it is built from.
    """

    label: str
    name: str
    paths: str | None
    plugin: ModelPlugin[Any]
    config: Any

    def build(self, device: torch.device) -> PreTrainedModel:
        """The model with random weights, those of seed 0, on the device."""
        set_seed(0)
        model = self.plugin.build(self.config)
        nn.Module.to(model, device)
        return model

    def describe(self, model: PreTrainedModel) -> dict[str, Any]:
        """What was measured, as plain data."""
        counts = count_parameters(self.plugin, model)
        return {
            "label": self.label,
            "name": self.name,
            "version": self.plugin.version,
            "paths_asked_for": self.paths,
            "config": dataclasses.asdict(self.config),
            "parameters": sum(counts.values()),
            "parameters_non_embedding": non_embedding(counts),
            "weight_bytes": parameter_bytes(model),
            "counts_masked_products": self.plugin.counts_masked_products,
            "confounds": self.plugin.confounds(self.config),
        }


def find_subjects(
    labels: Sequence[str],
    presets: Sequence[str] = (),
    changes: Mapping[str, str] | None = None,
    budget: ParameterBudget | None = None,
    allow_unmatched: bool = False,
) -> list[Subject]:
    """The models called `labels`, each a plugin's name, with "@" and paths of operations behind it where it is to take
    other ones than the process.

    `changes` are texts by key: "model.FIELD" for all models, "NAME.FIELD" for one, by plugin or by whole label. Raises
    RequestError for the first thing that is wrong.
    """
    repeated = sorted({label for label in labels if list(labels).count(label) > 1})
    if repeated:
        raise RequestError(f"--models names {', '.join(repeated)} more than once")
    split = [(label, *_split(label)) for label in labels]
    owners = {owner for label, name, _ in split for owner in (label, name)}
    _check_keys(changes or {}, owners)
    subjects = []
    for label, name, paths in split:
        plugin = find_model(name)
        config = plugin.with_vocabulary(_preset(name, plugin, presets), VOCABULARY)
        own = _own(changes or {}, name, label)
        config = with_settings(config, own, f"model {name}")
        if budget is not None:
            require_unsolved(plugin, own)
            config = _matched(name, plugin, config, budget, allow_unmatched)
        subjects.append(Subject(label, name, paths, plugin, config))
    return subjects


def require_weights(subjects: Sequence[Subject], available: int, copies: int) -> None:
    """Raise RequestError when `copies` of the weights of all models together exceed the memory that is there."""
    needed = 0
    for subject in subjects:
        try:
            needed += copies * parameter_bytes(build_without_memory(subject.plugin, subject.config))
        except RequestError:
            raise
        except Exception:
            # Not every architecture can be built without memory; the real build shows whether anything is wrong.
            continue
    if needed > available:
        raise RequestError(
            f"the weights of these models, and the gradients of one where it is trained, take more than"
            f" {needed / 2**30:.1f} GiB and {available / 2**30:.1f} GiB are available; name fewer models or a smaller"
            " preset"
        )


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """What a pass in "fp32" or "bf16" runs under, as in training."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def _split(label: str) -> tuple[str, str | None]:
    """The plugin's name and the paths behind it; several paths have "+" between them, as "," stands between models."""
    name, mark, paths = label.partition(PATHS_MARK)
    if mark and not (name and paths):
        raise RequestError(f"--models {label}: type MODEL@PATH or MODEL@OPERATION=PATH+OPERATION=PATH")
    return name, paths.replace("+", ",") if mark else None


def _preset(name: str, plugin: ModelPlugin[Any], presets: Sequence[str]) -> Any:
    for preset in presets:
        if preset not in plugin.presets:
            raise RequestError(
                f"unknown preset {preset!r}{did_you_mean(preset, plugin.presets)}\n"
                f"presets of model {name}: {', '.join(plugin.presets)}"
            )
    if len(set(presets)) > 1:
        raise RequestError(f"--preset {' and --preset '.join(presets)}: every model has one preset; type one of them")
    return plugin.presets[presets[0] if presets else plugin.default_preset]


def _check_keys(changes: Mapping[str, str], owners: set[str]) -> None:
    for key in changes:
        owner, dot, _ = key.rpartition(".")
        if not dot:
            raise RequestError(
                f"--set {key}: a key is model.FIELD, or NAME.FIELD with one of --models; type --set model.{key}=..."
            )
        if owner not in owners | {"model"}:
            raise RequestError(
                f"--set {key}: a key is model.FIELD, or NAME.FIELD with one of --models"
                f"{did_you_mean(owner or key, owners)}; nothing but fields of models can be set here"
            )


def _own(changes: Mapping[str, str], name: str, label: str) -> dict[str, str]:
    """The changes of one contestant by field. Raises RequestError when two of them say something of one field."""
    own: dict[str, str] = {}
    spelt: dict[str, str] = {}
    for key, text in changes.items():
        owner, _, field = key.rpartition(".")
        if owner not in ("model", name, label):
            continue
        if field in own:
            raise RequestError(f"--set {spelt[field]} and {key} are the same field of {label}; give it once")
        own[field], spelt[field] = text, key
    return own


def _matched(name: str, plugin: ModelPlugin[Any], config: Any, budget: ParameterBudget, allow_unmatched: bool) -> Any:
    match = match_parameters(plugin, config, budget)
    if not match.matched and not allow_unmatched:
        raise RequestError(
            f"model {name} comes no nearer to {budget.target:,} parameters than {match.achieved:,}"
            f" ({match.deviation:+.1%}, tolerance {TOLERANCE:.0%}); type --allow-unmatched to measure it all the same,"
            " or choose another budget"
        )
    return match.config
