"""Stored results arranged for tables and plots."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seqbench.accounting.size_budget import TOLERANCE
from seqbench.errors import Circumstance
from seqbench.evaluating.measured import values_by_place
from seqbench.statistics.summary import Summary, summarise

Result = dict[str, Any]

# Of a run that circumstance has ended, and that the same command tries again.
UNFINISHED = Circumstance.status


@dataclass(frozen=True)
class Curve:
    """One model's primary metric over the primary coordinate.

    Attributes:
        label: the model's name.
        reach: its attention reach, or None.
        unit: unit of the values.
        points: coordinate value -> the values of all seeds, in order of seeds.
    """

    label: str
    reach: int | None
    unit: str
    points: dict[float, list[float]]

    def summary(self, coordinate: float) -> Summary | None:
        """Mean and spread at a coordinate, or None where nothing was measured."""
        values = self.points.get(coordinate)
        return summarise(values) if values else None


def label_of(result: Result) -> str:
    """Name of the model as tables show it."""
    ablation = result["model"]["ablation"]
    return f"{result['model']['name']} ({ablation})" if ablation else result["model"]["name"]


def complete(results: Sequence[Result]) -> list[Result]:
    """The results that have measurements."""
    return [result for result in results if result["status"] == "complete"]


def absence(group: Sequence[Result]) -> str:
    """What to say of a model that has no complete run: "unfinished" where one may still come of itself."""
    return UNFINISHED if any(result["status"] == UNFINISHED for result in group) else "failed"


def by_model(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Results grouped by model label, in order of first appearance."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[label_of(result)].append(result)
    return dict(groups)


def primary_curves(results: Sequence[Result]) -> list[Curve]:
    """One curve per model with at least one complete result."""
    curves = []
    for label, group in by_model(complete(results)).items():
        points: dict[float, list[float]] = defaultdict(list)
        unit = ""
        for result in group:
            task = result["task"]
            metric, coordinate = task["primary_metric"], task["primary_coordinate"]
            for place, value in values_by_place(metric, coordinate, result["measurements"]).items():
                points[place].append(value)
            for measurement in result["measurements"]:
                if measurement["metric"] == metric and coordinate in measurement["coordinates"]:
                    unit = measurement["unit"]
        curves.append(Curve(label, reach_of(group[0]), unit, dict(sorted(points.items()))))
    return curves


def reach_of(result: Result) -> int | None:
    """How many tokens back the model's attention, or else all of the model, looks; None where that is unbounded."""
    field = result["receptive_field"]
    return result["attention_reach"] if result["attention_reach"] is not None or field is None else field - 1


def parameter_budget(result: Result) -> dict[str, Any] | None:
    """What the model's size was to be: kind, target, achieved, deviation. None where nothing was asked.

    What is left of a model without a part is counted itself: what is stored is the size of the whole model.
    """
    budget = next((budget for budget in result["budgets"] if budget["kind"].startswith("parameters")), None)
    own = "parameters_" + budget["kind"].removeprefix("parameters-").replace("-", "_") if budget is not None else ""
    if budget is None or not result["model"]["ablation"] or own not in result:
        return budget
    return {**budget, "achieved": result[own], "deviation": (result[own] - budget["target"]) / budget["target"]}


def training_budget(result: Result) -> dict[str, Any] | None:
    """What ended training, as `parameter_budget`. None for a run that failed."""
    return next((budget for budget in result["budgets"] if not budget["kind"].startswith("parameters")), None)


def unmatched(result: Result) -> bool:
    """Whether the model's size is farther from the one asked for than the tolerance."""
    budget = parameter_budget(result)
    return budget is not None and abs(budget["deviation"]) > TOLERANCE


def soundness_state(result: Result) -> str:
    """Whether the model keeps what scores rest on: "sound", "unsound", or "unchecked" for a result without a word."""
    return str(result.get("soundness", {}).get("state", "unchecked"))


def shown_names(results: Sequence[Result]) -> dict[str, str]:
    """Label of each model -> its name in tables and plots, which says so when the model is unmatched or not sound."""
    groups = by_model(results).items()
    return {label: label + _soundness_mark(complete(group)) + _mark(group) for label, group in groups}


def _soundness_mark(group: Sequence[Result]) -> str:
    states = {soundness_state(result) for result in group}
    return next((f" ({state.upper()})" for state in ("unsound", "unchecked") if state in states), "")


def _mark(group: Sequence[Result]) -> str:
    for result in group:
        budget = parameter_budget(result)
        if budget is not None and unmatched(result):
            return f" (unmatched {percent(budget['deviation'])})"
    return ""


def percent(share: float) -> str:
    """A signed share in percent."""
    return f"{100 * share:+z.1f} %"


def words(name: str) -> str:
    """A metric's or coordinate's name as people read it."""
    return name.replace("_", " ")
