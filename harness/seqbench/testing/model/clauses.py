"""The contract of a model, clause by clause."""

from seqbench.contracts.suggestions import did_you_mean
from seqbench.testing.clause import Clause, clause_table
from seqbench.testing.model import (
    accounting,
    calls,
    declarations,
    files,
    generation,
    padding,
    sequence,
    streaming,
    training,
    weights,
)
from seqbench.testing.model.subject import ModelSubject
from seqbench.testing.report import ClauseFailure


def exemptions(subject: ModelSubject) -> None:
    """Every clause that the plugin declares not to fulfil exists, and the plugin says why."""
    for clause, reason in subject.exemptions.items():
        if clause not in MODEL_CLAUSES or clause == "exemptions":
            raise ClauseFailure(
                f"exemptions name {clause!r}, no clause with exemptions{did_you_mean(clause, MODEL_CLAUSES)}",
                f"the clauses are: {', '.join(name for name in MODEL_CLAUSES if name != 'exemptions')}",
            )
        if not isinstance(reason, str) or not reason.strip():
            raise ClauseFailure(f"exemptions give no reason for {clause!r}")


_BUILT, _LOGITS = ("build",), ("vocabulary",)
# A call that gives other numbers each time is alike nothing.
_REPEATABLE = ("deterministic",)

# Clause -> those without which it says nothing: it would fail for their reason.
_NEEDS = {
    "presets": _BUILT,
    "width": _BUILT,
    "ablations": _LOGITS,
    "forward": _BUILT,
    "vocabulary": ("forward",),
    "causal": _REPEATABLE,
    "rows-independent": _REPEATABLE,
    "receptive-field": ("causal",),
    "chunked": ("causal", "rows-independent"),
    "state-bytes": _LOGITS,
    "state-detached": _LOGITS,
    "padding": ("causal", "rows-independent"),
    "padding-state": ("chunked", "padding"),
    "arguments": ("chunked",),
    "labels": _REPEATABLE,
    "logits-to-keep": ("chunked",),
    "generate": ("padding-state",),
    "parameters": _LOGITS,
    "flops": _LOGITS,
    "finite-gradients": _LOGITS,
    "training-step": ("finite-gradients",),
    "auxiliary-loss": ("rows-independent", "padding"),
    "seeded-initialisation": _BUILT,
    "deterministic": _LOGITS,
    "save-load": _REPEATABLE,
    "init": _REPEATABLE,
    "diagnose": _LOGITS,
}

# In the order in which they are shown.
MODEL_CLAUSES: dict[str, Clause] = clause_table(
    {
        "settings": declarations.settings,
        "presets": declarations.presets,
        "width": declarations.width,
        "ablations": declarations.ablations,
        "exemptions": exemptions,
        "build": sequence.build,
        "forward": sequence.forward,
        "vocabulary": sequence.vocabulary,
        "causal": sequence.causal,
        "rows-independent": sequence.rows_independent,
        "receptive-field": sequence.receptive_field,
        "chunked": streaming.chunked,
        "state-bytes": streaming.state_bytes,
        "state-detached": streaming.state_detached,
        "padding": padding.padding,
        "padding-state": padding.padding_state,
        "arguments": calls.arguments,
        "labels": calls.labels,
        "logits-to-keep": calls.logits_to_keep,
        "generate": generation.generate,
        "parameters": accounting.parameters,
        "flops": accounting.flops,
        "finite-gradients": weights.finite_gradients,
        "training-step": training.training_step,
        "auxiliary-loss": training.auxiliary_loss,
        "seeded-initialisation": weights.seeded_initialisation,
        "deterministic": weights.deterministic,
        "save-load": files.save_load,
        "init": files.init,
        "diagnose": declarations.diagnose,
    },
    _NEEDS,
)
