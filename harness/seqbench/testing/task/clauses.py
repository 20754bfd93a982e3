"""The contract of a task, clause by clause."""

from seqbench.testing.clause import Clause, clause_table
from seqbench.testing.task import data, declarations, evaluation

# Clause -> those without which it says nothing: it would fail for their reason.
_NEEDS = {
    "reproducible": ("batches",),
    "distinct": ("batches",),
    "items": ("evaluation",),
    "repeatable": ("evaluation",),
    "evaluation-calls": ("evaluation",),
    "splits-apart": ("evaluation", "batches"),
    "held-out": ("evaluation", "batches"),
}

# In the order in which they are shown.
TASK_CLAUSES: dict[str, Clause] = clause_table(
    {
        "settings": declarations.settings,
        "presets": declarations.presets,
        "batches": data.batches,
        "reproducible": data.reproducible,
        "distinct": data.distinct,
        "evaluation": evaluation.evaluation,
        "items": evaluation.items,
        "repeatable": evaluation.repeatable,
        "evaluation-calls": evaluation.evaluation_calls,
        "splits-apart": evaluation.splits_apart,
        "held-out": evaluation.held_out,
    },
    _NEEDS,
)
