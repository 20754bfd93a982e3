"""Results as runs store them, with figures of choice."""

import io

import numpy as np
from rich.console import Console

from seqbench.report.item_scores import ItemScores, ItemsUnusable


def measured(value, **coordinates):
    return {
        "metric": "accuracy",
        "value": value,
        "unit": "fraction",
        "n": 1000,
        "split": "test",
        "coordinates": coordinates,
    }


def result(model="near", seed=0, values=(0.9, 0.5), reach=4, **changes):
    """A stored result with the given accuracies at look-backs 2, 6, ..., and their mean over the whole test set."""
    places = [measured(value, lookback=2 + 4 * number) for number, value in enumerate(values)]
    return {
        "status": "complete",
        "model": {"name": model, "ablation": None},
        "task": {
            "name": "recall",
            "primary_metric": "accuracy",
            "primary_coordinate": "lookback",
            "higher_is_better": True,
            "config": {"symbols": 8},
        },
        "seed": seed,
        "precision": "fp32",
        "split": "test",
        "parameters": {"embedding": 234567, "other": 1000000},
        "parameters_total": 1234567,
        "parameters_non_embedding": 1000000,
        "flops": {"training_per_token": 2.5e6, "convention": "", "sequence_length": 8},
        "state_bytes": {"8": 2048},
        "attention_reach": reach,
        "receptive_field": None if reach is None else reach + 1,
        "confounds": {"depth": "1 layer", "mixer": model},
        "notes": ["chance is 1/8"],
        "tokens": 4321,
        "seconds": 61.0,
        "steps": 5,
        "training_flops": 2500000 * 4321,
        "budgets": [{"kind": "steps", "target": 5, "achieved": 5, "deviation": 0.0}],
        "data_order_sha256": "aa",
        "soundness": {"state": "sound", "key": "", "clauses": {}, "trained": {}},
        "measurements": [*places, measured(sum(values) / len(values))],
        **changes,
    }


def failed(model="broken", seed=0):
    """A run that failed after its model was built."""
    return {
        **result(model, seed),
        "status": "failed",
        "failure": {"reason": "divergence", "message": "the loss is gone"},
        "budgets": [],
        "measurements": [],
    }


def failed_early(model="broken", seed=0):
    """A run that failed before anything was known of its model."""
    known = ("status", "model", "task", "seed", "failure", "budgets", "measurements")
    return {key: value for key, value in failed(model, seed).items() if key in known}


def sized(stored, target, achieved, kind="parameters-non-embedding"):
    """The result of a model that was to have `target` parameters."""
    budget = {"kind": kind, "target": target, "achieved": achieved, "deviation": (achieved - target) / target}
    return {**stored, "budgets": [*stored["budgets"], budget]}


def no_items(stored):
    """Reads the items of a task that stores none."""
    raise ItemsUnusable("the task stores no items")


def items(scores, weights=None):
    """Scores of items 0, 1, ..."""
    weights = np.ones(len(scores)) if weights is None else np.array(weights, dtype=float)
    return ItemScores(np.arange(len(scores)), np.array(scores, dtype=float), weights)


def shown(renderable, width=200):
    """What a terminal of that width shows."""
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()
