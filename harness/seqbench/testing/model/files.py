"""Clauses on files: a saved model is the same model, for transformers and for a run that starts from it."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from seqbench.planning.initial_weights import find_initial_weights, load_weights
from seqbench.testing.model.subject import LENGTH, VOCABULARY, ModelSubject
from seqbench.testing.report import ClauseFailure, few
from seqbench.testing.tensors import largest_difference, random_tokens, same_bits


def save_load(subject: ModelSubject) -> None:
    """A saved model is loaded with its weights, its ties and its predictions.

    By its own class or, where that is made at run time, by the class that transformers finds for it.
    """
    model = subject.probe().model
    tokens = random_tokens(2, LENGTH, VOCABULARY)
    expected, saved = _logits(model, tokens), model.state_dict()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        torch.manual_seed(99)
        loader: Any = type(model) if _importable(type(model)) else AutoModelForCausalLM
        loaded = loader.from_pretrained(folder)
    if loaded.state_dict().keys() != saved.keys():
        differing = sorted(loaded.state_dict().keys() ^ saved.keys())
        raise ClauseFailure(f"names of weights differ after loading: {few(differing)}")
    lost = [name for name, tensor in loaded.state_dict().items() if not same_bits(tensor, saved[name])]
    if lost:
        raise ClauseFailure(
            f"{few(lost)} of {len(saved)} tensors have other values after loading",
            "usual causes: weights that are shared without _tied_weights_keys and tie_word_embeddings, names that"
            " change between saving and loading",
        )
    if _sharing(loaded) != _sharing(model):
        raise ClauseFailure(
            f"shared weights before saving: {_sharing(model) or 'none'}; after loading: {_sharing(loaded) or 'none'}",
            "name them in _tied_weights_keys, and set tie_word_embeddings in the config",
        )
    difference = largest_difference(_logits(loaded, tokens), expected)
    if difference > 1e-6 * max(1.0, expected.abs().max().item()):
        raise ClauseFailure(
            f"the loaded model has all weights, and logits that differ by {difference:.1e}",
            "usual causes: a setting that the config does not keep, a buffer that is not saved and not the same again"
            " (transformers builds models without values before it loads them)",
        )


def init(subject: ModelSubject) -> None:
    """A run can start from a saved model: `--init FOLDER` finds the plugin's settings in it and takes its weights."""
    model = subject.probe().model
    tokens = random_tokens(2, LENGTH, VOCABULARY)
    expected = _logits(model, tokens)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        settings = find_initial_weights(folder, subject.plugin).settings
        loaded = load_weights(subject.plugin.build(settings), Path(folder))
    difference = largest_difference(_logits(loaded, tokens), expected)
    if difference > 1e-6 * max(1.0, expected.abs().max().item()):
        raise ClauseFailure(
            f"with the settings that settings_from() finds ({settings}), logits differ by {difference:.1e}",
            "settings_from() must return every setting that the saved config decides",
        )


def _logits(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(tokens.clone()).logits


def _importable(kind: type) -> bool:
    """Whether the class can be found again by its module and name."""
    found: Any = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is kind


def _sharing(model: PreTrainedModel) -> list[list[str]]:
    """Names of parameters that are one and the same, in groups."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return sorted(sorted(group) for group in names.values() if len(group) > 1)
