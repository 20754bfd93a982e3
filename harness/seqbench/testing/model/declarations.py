"""Clauses on what a plugin says of itself: words, settings, presets, axes, ablations, diagnostics."""

import dataclasses
import math
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from seqbench.accounting.counting import count_parameters
from seqbench.contracts import (
    IGNORED_LABEL,
    Batch,
    Classification,
    Flops,
    Measurement,
    ModelPlugin,
    WidthAxis,
    describe_settings,
)
from seqbench.contracts.suggestions import did_you_mean
from seqbench.errors import RequestError
from seqbench.testing.model.subject import LENGTH, VOCABULARY, ModelSubject
from seqbench.testing.report import ClauseFailure
from seqbench.testing.settings import require_settings, require_words
from seqbench.testing.tensors import gradients_of, next_token_loss, random_tokens

_Shapes = dict[str, tuple[int, ...]]


def settings(subject: ModelSubject) -> None:
    """Name, summary and version are set, every setting is documented, and what the plugin declares has its types."""
    plugin, config = subject.plugin, subject.config
    require_words(plugin, ("name", "summary", "version"))
    if not isinstance(plugin.classification, Classification):
        raise ClauseFailure(f"classification is {plugin.classification!r}, expected a Classification")
    require_settings(plugin.config_class, config)
    _require_accounting(plugin, config, "")
    confounds = plugin.confounds(config)
    if not confounds or not all(isinstance(word, str) for entry in confounds.items() for word in entry):
        raise ClauseFailure(f"confounds() is {confounds!r}, expected words for each confound")


def presets(subject: ModelSubject) -> None:
    """Every preset is a documented config, is built on device meta, and can be accounted for."""
    plugin = subject.plugin
    if plugin.default_preset not in plugin.presets:
        raise ClauseFailure(f"default_preset {plugin.default_preset!r} is not among {', '.join(plugin.presets)}")
    for name, config in plugin.presets.items():
        require_settings(plugin.config_class, config)
        _build_on_meta(plugin, config, f"preset {name}")
        _require_accounting(plugin, config, f"preset {name}: ")


def width(subject: ModelSubject) -> None:
    """The width axis, and the fine axis if there is one, name a setting; a step further there are more parameters."""
    plugin, config = subject.plugin, subject.config
    before = _count(plugin, config, "the preset")
    axes = {"width_axis": plugin.width_axis} | ({"fine_axis": plugin.fine_axis} if plugin.fine_axis else {})
    for what, axis in axes.items():
        if not isinstance(axis, WidthAxis) or not isinstance(axis.step, int) or axis.step < 1:
            raise ClauseFailure(f"{what} is {axis!r}, expected a WidthAxis with a step of 1 or more")
        known = describe_settings(plugin.config_class)
        value = getattr(config, axis.field, None)
        if axis.field not in known or not isinstance(value, int):
            raise ClauseFailure(
                f"{what} names {axis.field!r}, which is {value!r} here and no whole number of the settings"
                f"{did_you_mean(axis.field, known)}"
            )
        wider = dataclasses.replace(config, **{axis.field: value + axis.step})
        after = _count(plugin, wider, f"{axis.field}={value + axis.step}")
        if after <= before:
            raise ClauseFailure(
                f"{what}: {axis.field} from {value} to {value + axis.step} takes the parameters from {before:,} to"
                f" {after:,}, expected more",
                "budget matching searches this axis; does build() read the setting?",
            )


def ablations(subject: ModelSubject) -> None:
    """Every ablation changes existing settings, and the changed model runs; one at evaluation keeps the parameters."""
    plugin, config = subject.plugin, subject.config
    known, whole = describe_settings(plugin.config_class), _shapes(subject.fresh())
    for name, ablation in plugin.ablations.items():
        if not (ablation.summary and (ablation.in_training or ablation.at_evaluation)):
            raise ClauseFailure(f"ablation {name} has no summary, or applies neither in training nor at evaluation")
        for field in ablation.changes:
            if field not in known:
                raise ClauseFailure(f"ablation {name} changes {field!r}, no setting{did_you_mean(field, known)}")
        changed = dataclasses.replace(config, **ablation.changes)
        if changed == config:
            raise ClauseFailure(f"ablation {name} leaves preset {subject.preset} as it is: {dict(ablation.changes)}")
        torch.manual_seed(0)
        model = plugin.build(changed).eval()
        with torch.no_grad():
            logits = model(random_tokens(2, LENGTH, VOCABULARY)).logits
        if logits.shape != (2, LENGTH, VOCABULARY) or not logits.isfinite().all():
            raise ClauseFailure(
                f"ablation {name} gives logits of shape {tuple(logits.shape)}, {int((~logits.isfinite()).sum())} of"
                f" them not finite; expected {(2, LENGTH, VOCABULARY)} and 0"
            )
        _require_accounting(plugin, changed, f"ablation {name}: ")
        if ablation.at_evaluation and _shapes(model) != whole:
            differing = sorted(entry[0] for entry in _shapes(model).items() ^ whole.items())
            raise ClauseFailure(
                f"ablation {name} applies at evaluation and has other weights than the whole model: {differing[0]}",
                "a trained model must fit: switch the part off in the forward pass, and keep its parameters",
            )


def diagnose(subject: ModelSubject) -> None:
    """The plugin's diagnostics are finite measurements; taking them draws no random numbers and changes nothing."""
    model = subject.probe().model
    tokens = random_tokens(2, LENGTH, VOCABULARY)
    for name, gradient in gradients_of(model, next_token_loss(model, tokens)).items():
        model.get_parameter(name).grad = gradient
    before, drawn = _contents(model), torch.random.get_rng_state()
    labels = F.pad(tokens[:, 1:], (0, 1), value=IGNORED_LABEL)
    measurements = subject.plugin.diagnose(model, Batch(tokens, labels))
    for measurement in measurements:
        if not isinstance(measurement, Measurement) or not math.isfinite(measurement.value):
            raise ClauseFailure(f"diagnose() returns {measurement!r}, expected finite Measurements")
    if not torch.equal(drawn, torch.random.get_rng_state()):
        raise ClauseFailure("diagnose() draws random numbers", "training would go on differently with diagnostics")
    after = _contents(model)
    changed = [name for name in before if before[name] != after.get(name)]
    if changed or before.keys() != after.keys():
        raise ClauseFailure(f"diagnose() changes {changed[0] if changed else 'gradients'} of the model")


def _require_accounting(plugin: ModelPlugin[Any], config: Any, what: str) -> None:
    """What results record of any config, at a short and a long length."""
    for length in (1, 1024):
        declared = plugin.flops(config, length)
        if not isinstance(declared, Flops) or declared.forward_total <= 0 or declared.backward_factor < 0:
            raise ClauseFailure(f"{what}flops() of {length} tokens is {declared!r}, expected more than 0")
        state = plugin.state_bytes(config, length)
        if not isinstance(state, int) or state < 0:
            raise ClauseFailure(f"{what}state_bytes() of {length} tokens is {state!r}, expected a whole number")
    plugin.attention_reach(config), plugin.receptive_field(config), plugin.confounds(config)


def _build_on_meta(plugin: ModelPlugin[Any], config: Any, what: str) -> PreTrainedModel:
    try:
        with torch.device("meta"):
            return plugin.build(config)
    except RequestError:
        raise
    except Exception as error:
        raise ClauseFailure(
            f"{what} cannot be built on device meta: {type(error).__name__}: {error}",
            "models are built there to know their size, and transformers does it before it loads weights: compute no"
            " Python numbers from tensors in __init__",
        ) from error


def _count(plugin: ModelPlugin[Any], config: Any, what: str) -> int:
    return sum(count_parameters(plugin, _build_on_meta(plugin, config, what)).values())


def _shapes(model: PreTrainedModel) -> _Shapes:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _contents(model: PreTrainedModel) -> dict[str, Any]:
    """Everything of a model that training goes on from, in a form that compares by value."""
    tensors = dict(model.state_dict())
    tensors |= {f"gradient of {name}": parameter.grad for name, parameter in model.named_parameters()}
    contents = {
        name: None if tensor is None else tensor.numpy(force=True).tobytes() for name, tensor in tensors.items()
    }
    return {**contents, **{f"mode of {name}": module.training for name, module in model.named_modules()}}
