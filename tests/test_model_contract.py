"""The contract of a model plugin, over every installed plugin, each on its default preset with a small vocabulary.

The clauses are those of `bench check` and say themselves what they demand (seqbench.testing.model).
"""

import functools

import pytest

from seqbench.plugins.registry import MODEL_GROUP, BrokenPlugin, announced, find_model, takes_argument
from seqbench.testing.clause import examine
from seqbench.testing.model.clauses import MODEL_CLAUSES
from seqbench.testing.model.subject import ModelSubject
from seqbench.testing.report import DECLARED, FAILED

# Plugins that are named with an argument: one to try them with.
ARGUMENTS = {"hf": "llama"}
# What shipped plugins declare not to fulfil; anything else is to be fulfilled.
DECLARATIONS = {("hf", "init")}


@functools.cache
def subject_of(name: str) -> ModelSubject:
    plugin_class = announced(MODEL_GROUP)[name]
    if isinstance(plugin_class, BrokenPlugin):
        pytest.fail(f"{name} is announced and broken: {plugin_class.traceback}")
    if takes_argument(plugin_class):
        if name not in ARGUMENTS:
            pytest.skip(f"{name} takes an argument, and none is known here to try it with")
        name = f"{name}:{ARGUMENTS[name]}"
    plugin = find_model(name)
    return ModelSubject(plugin, plugin.default_preset)


# Those that hang on what transformers does: run on every release that is admitted, of every model that has a form of
# its own there; those of the mixer kit have one form.
OF_TRANSFORMERS = {"arguments", "labels", "logits-to-keep", "generate", "training-step", "save-load", "init"}
FORMS = {"gated-convolution", "hf", "mamba", "mamba2", "pmnet", "sliding-window", "transformer"}


@pytest.mark.parametrize(
    ("name", "clause"),
    [
        pytest.param(name, clause, marks=[pytest.mark.transformers] * (clause in OF_TRANSFORMERS and name in FORMS))
        for name in sorted(announced(MODEL_GROUP))
        for clause in MODEL_CLAUSES
    ],
)
def test_the_plugin_keeps(name: str, clause: str) -> None:
    outcome = examine(subject_of(name), MODEL_CLAUSES[clause])
    assert outcome.state != FAILED, f"{outcome.message}\n{outcome.hint}\n{outcome.traceback}"
    assert (outcome.state == DECLARED) == ((name, clause) in DECLARATIONS), outcome.message


# What decides rankings besides the mixer, in results of every model: a gap in that table says nothing.
CONFOUNDS = {"short convolution", "position encoding", "depth", "feed-forward", "norm", "initialisation", "kernel path"}


@pytest.mark.parametrize("name", sorted(announced(MODEL_GROUP)))
def test_every_model_says_all_that_decides_rankings_besides_its_mixer(name: str) -> None:
    subject = subject_of(name)
    assert subject.plugin.confounds(subject.plugin.presets[subject.preset]).keys() >= CONFOUNDS
