"""The contract of a task, clause by clause."""

from seqbench.testing.clause import Clause, clause_table
from seqbench.testing.task import data, declarations, evaluation

# In the order in which they are run and shown.
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
    }
)
