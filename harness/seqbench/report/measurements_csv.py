"""All measurements of several results as one table of comma-separated values."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from seqbench.report.outgoing import spreadsheet_cell
from seqbench.report.results import Result, parameter_budget, soundness_state, training_budget, unmatched
from seqbench.report.soundness import exemptions_of


def results_csv(results: Sequence[Result]) -> str:
    """One line per model, seed and measurement under one line of names; one line for each failed run.

    A coordinate `x` becomes the column coordinate_x (empty where a measurement has none, "unbounded" for None), a
    budget of kind `k` the columns budget_k_target, budget_k_achieved and budget_k_deviation. A value that is no finite
    number is left empty. `hardware` is filled where runs differ in it, so that their seconds do not compare.
    `soundness` is sound, unsound or unchecked; `exemptions` are clauses that the plugin declares not to fulfil.
    """
    rows = [row for result in results for row in _rows(result)]
    coordinates, budgets = (
        dict.fromkeys(name for row in rows for name in row if name.startswith(prefix))
        for prefix in ("coordinate_", "budget_")
    )
    names = [*_RUN, *_MEASUREMENT, *coordinates, *budgets, *_SIZE]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writerow({name: spreadsheet_cell(name) for name in names})
    writer.writerows({name: spreadsheet_cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


_RUN = ("task", "model", "ablation", "seed", "status", "failure")
_MEASUREMENT = ("metric", "value", "unit", "n", "split")
_SIZE = (
    *("parameters_total", "parameters_non_embedding", "unmatched", "steps", "tokens", "training_flops", "seconds"),
    *("hardware", "soundness", "exemptions"),
)


def _rows(result: Result) -> list[dict[str, Any]]:
    run = {
        "task": result["task"]["name"],
        "model": result["model"]["name"],
        "ablation": result["model"]["ablation"],
        "seed": result["seed"],
        "status": result["status"],
        "failure": result["failure"]["reason"] if "failure" in result else None,
        "unmatched": unmatched(result) if parameter_budget(result) else None,
        **{name: result[name] for name in _SIZE if name in result and name != "soundness"},
        "soundness": soundness_state(result) if result["status"] == "complete" else None,
        "exemptions": exemptions_of(result) or None,
    }
    for budget in filter(None, (parameter_budget(result), training_budget(result))):
        for name in ("target", "achieved", "deviation"):
            run[f"budget_{budget['kind']}_{name}"] = budget[name]
    if result["status"] != "complete":
        return [run]
    return [run | _measurement(measurement) for measurement in result["measurements"]]


def _measurement(measurement: dict[str, Any]) -> dict[str, Any]:
    coordinates = {
        f"coordinate_{name}": "unbounded" if value is None else value
        for name, value in measurement["coordinates"].items()
    }
    return {name: measurement[name] for name in _MEASUREMENT} | coordinates
