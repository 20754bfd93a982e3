"""The forms of the files of a run: every field that anything reads, with its type and range."""

from typing import Any

from seqbench.errors import Circumstance
from seqbench.store.schema import (
    Check,
    any_of,
    anything,
    boolean,
    by_field,
    digest,
    integer,
    items,
    mapping,
    number,
    one_of,
    optional,
    record,
    text,
)

# The kinds of a training budget, and their units as tables show them.
BUDGET_UNITS = {"steps": "steps", "tokens": "tokens", "flops": "FLOPs", "seconds": "s"}
# FLOPs are beyond 64 bits after a few days of a GPU.
_COUNT = number(0, 1e40)
_COUNTS = integer(0, 10**40)
_SHARE = number(0, 1)

MEASUREMENT = record(
    {
        "metric": text,
        "value": optional(number()),
        "unit": text,
        "n": integer(),
        "split": text,
        "coordinates": mapping(optional(any_of(text, number()))),
    }
)

RUN = record(
    {
        "hash": digest,
        "identity": record(
            {
                "model": record({"name": text}, {"ablation": optional(text), "version": text, "config": mapping()}),
                "task": record({"name": text}, {"version": text, "config": mapping(), "data": mapping()}),
                "seed": integer(),
            },
            {
                "core": text,
                "trainer": mapping(),
                "budget": record({"kind": one_of(*BUDGET_UNITS), "target": _COUNT}),
                "device": text,
                "precision": text,
                "split": text,
                "speed": mapping(),
            },
        ),
    },
    # Fields of the configuration, of whatever type the task gave them.
    {"schema": anything, "locations": mapping()},
)

ENVIRONMENT = record(
    {"run": digest},
    {
        "kernels": text,
        "threads": optional(integer()),
        "cores": optional(integer()),
        "device_name": text,
        "packages": mapping(text),
        "variables": mapping(optional(any_of(text, number(), boolean))),
    },
)

_MODEL = record({"name": text}, {"ablation": optional(text)})
_TASK = record(
    {
        "name": text,
        "primary_metric": text,
        "primary_coordinate": text,
        "higher_is_better": boolean,
    },
    {"config": mapping(), "data": mapping()},
)
_BUDGET = record({"kind": text, "target": _COUNT, "achieved": _COUNT, "deviation": number()})
_HEADER: dict[str, Check] = {
    "status": one_of("complete", "failed"),
    "model": _MODEL,
    "task": _TASK,
    "seed": integer(),
    "budgets": items(_BUDGET),
    "measurements": items(MEASUREMENT),
}
# What is known before training, and so of some failures too.
_FACTS: dict[str, Check] = {
    "parameters": mapping(integer()),
    "parameters_total": integer(),
    "parameters_non_embedding": integer(),
    "flops": record({"training_per_token": _COUNT}),
    "state_bytes": mapping(_COUNT),
    "attention_reach": optional(integer()),
    "receptive_field": optional(integer()),
    "confounds": mapping(text),
    "notes": items(text),
}
_OUTCOME: dict[str, Check] = {
    "precision": text,
    "split": text,
    "steps": integer(),
    "tokens": integer(),
    "seconds": number(0),
    "data_order_sha256": text,
}
_CLAUSES = mapping(record({"state": text, "message": text}))
_POSSIBLE: dict[str, Check] = {
    "soundness": record({"state": text, "clauses": _CLAUSES, "trained": optional(_CLAUSES)}),
    "contamination": items(
        record(
            {
                "split": text,
                "items": integer(1),
                "distinct": integer(),
                "in_training": integer(),
                "in_test": integer(),
                "coordinates": mapping(optional(any_of(text, number()))),
            }
        )
    ),
    "hash": digest,
    "files": items(text),
    "training_flops": _COUNTS,
    "compiled": boolean,
    "compile_seconds": number(0),
    "trained_in": text,
    "diagnostics": items(MEASUREMENT),
    "kernels": record({"taken": mapping(items(text))}),
    "continued": items(record({"step": integer(), "differences": items(text)})),
    "published": items(
        record({"metric": text, "value": number(), "coordinates": mapping(), "model": text, "source": text})
    ),
}
_FAILURE = record({"reason": text, "message": text})

_COMPLETE = record(_HEADER | _FACTS | _OUTCOME, _POSSIBLE)
_FAILED = record({**_HEADER, "failure": _FAILURE}, _FACTS | _OUTCOME | _POSSIBLE)

RESULT = by_field("status", {"complete": _COMPLETE, "failed": _FAILED})

# What an item is made of is its task's.
ITEM = mapping()

_FINITE_OR_NOT = optional(number())
_LINE: dict[str, Check] = {"kind": text, "step": integer()}
_TRAIN = record(
    {
        **_LINE,
        "loss": _FINITE_OR_NOT,
        "progress": _SHARE,
        "data_order_sha256": text,
    },
    {
        "gradient_norm": _FINITE_OR_NOT,
        "learning_rate": number(),
        "tokens": integer(),
        "flops": _COUNTS,
        "seconds": number(0),
        "losses": items(_FINITE_OR_NOT),
        "auxiliary_losses": items(_FINITE_OR_NOT),
        "gradient_norms": items(_FINITE_OR_NOT),
        "module_gradient_norms": mapping(_FINITE_OR_NOT),
    },
)

LOG_LINE = by_field(
    "kind",
    {
        "train": _TRAIN,
        "evaluation": record({**_LINE, "split": text, "measurements": items(MEASUREMENT)}),
        "diagnostics": record({**_LINE, "measurements": items(MEASUREMENT)}),
        "diagnostics-error": record({**_LINE, "message": text}),
        "kernels": record({**_LINE, "taken": mapping(items(text))}),
        "continued": record({**_LINE, "differences": items(text)}),
        "damage": record({**_LINE, "what": text}),
    },
    otherwise=record(_LINE),
)

# A part of a long evaluation; what its record holds is its task's.
EVALUATION_PART = record({"key": text, "belongs_to": text, "record": mapping()})

ATTEMPT = record({"reason": one_of(*Circumstance.WORDS)})

CHECKPOINT = record(
    {
        "schema": anything,
        "optimizers": items(mapping()),
        "state": record(
            {"step": integer()},
            {
                "tokens": integer(),
                "flops": _COUNTS,
                "seconds": number(0),
                "data_order": text,
                "decay_start": number(),
                "micro_batch_size": integer(),
                "compile_seconds": number(0),
            },
        ),
    }
)

COMPARISON = record(
    {"runs": items(digest), "results": items(record({}, {"hash": digest}))}, {"schema": anything, "sha256": text}
)


def fits(form: Check, value: Any) -> bool:
    """Whether a value is of this form."""
    try:
        form(value)
    except ValueError:
        return False
    return True
