"""An equal search for every architecture: the same grid of trainer settings, chosen on validation, its cost counted."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqbench.contracts import describe_settings
from seqbench.errors import RequestError
from seqbench.plan import resolve
from seqbench.report.results import overall
from seqbench.request import RunRequest
from seqbench.suggestions import did_you_mean
from seqbench.training.settings import TrainerSettings

_ALIASES = {"lr": "learning_rate"}

# Trials have seeds of their own, far from those of the final runs, so that nothing is chosen on a final run's luck.
SEED_OFFSET = 1_000_000

# How many points an edge is extended by.
_EXTENSION = 2

# The share of a trial that the first rung of a halving search trains for.
_FIRST_RUNG = 0.25

Point = tuple[tuple[str, str], ...]
RunTrials = Callable[[Sequence[RunRequest]], list[dict[str, Any]]]


@dataclass(frozen=True)
class SearchAxis:
    """One trainer field and the values that are tried.

    Attributes:
        field: name of the trainer's field.
        values: as text, ascending where they came from a range.
        is_range: whether more values can be made beyond its ends.
    """

    field: str
    values: tuple[str, ...]
    is_range: bool

    def beyond(self, value: str) -> tuple[str, ...]:
        """Further values past `value` when it is the first or the last of a range, in the same ratio; else none."""
        if not self.is_range or len(self.values) < 2 or value not in (self.values[0], self.values[-1]):
            return ()
        last = value == self.values[-1]
        edge, inner = (float(self.values[place]) for place in ((-1, -2) if last else (0, 1)))
        if edge > 0 and inner > 0:
            return tuple(_text(edge * (edge / inner) ** count) for count in range(1, _EXTENSION + 1))
        return tuple(_text(edge + (edge - inner) * count) for count in range(1, _EXTENSION + 1))


@dataclass(frozen=True)
class Trial:
    """One point tried for one model.

    Attributes:
        model: its name.
        point: (field, value) pairs.
        share: of the full training that it trained for.
        figure: primary metric on the validation set; None when the trial failed.
        tokens, seconds, flops: what it cost.
        failure: reason, or None.
    """

    model: str
    point: Point
    share: float
    figure: float | None
    tokens: int
    seconds: float
    flops: int
    failure: str | None


@dataclass(frozen=True)
class Choice:
    """What the search found for one model.

    Attributes:
        model: its name.
        point: the chosen values.
        trials: everything that was tried, in order.
        at_edge: fields whose chosen value is still the outermost one tried, after the extension.
    """

    model: str
    point: Point
    trials: tuple[Trial, ...]
    at_edge: tuple[str, ...]


def parse_axis(text: str) -> SearchAxis:
    """`lr=1e-4:1e-2:5` (five values from ... to ..., in equal ratios) or `optimizer=adamw,muon`.

    Raises RequestError for an unknown field or a range that is none.
    """
    name, equals, values = text.partition("=")
    field = _ALIASES.get(name.strip(), name.strip().removeprefix("trainer."))
    infos = describe_settings(TrainerSettings)
    if not equals or not values:
        raise RequestError(
            f"--search takes FIELD=LOW:HIGH:COUNT or FIELD=A,B,C, for example lr=1e-4:1e-2:5, not {text!r}"
        )
    if field not in infos:
        raise RequestError(f"--search {text}: the trainer has no field {field!r}{did_you_mean(field, infos)}")
    if ":" not in values:
        chosen = tuple(value.strip() for value in values.split(",") if value.strip())
        if len(set(chosen)) < 2:
            raise RequestError(f"--search {text}: give at least two different values")
        return SearchAxis(field, chosen, False)
    try:
        low_text, high_text, count_text = values.split(":")
        low, high, count = float(low_text), float(high_text), int(count_text)
    except ValueError:
        raise RequestError(f"--search {text}: a range reads LOW:HIGH:COUNT, for example 1e-4:1e-2:5") from None
    if not (0 <= low < high < math.inf) or count < 2:
        raise RequestError(f"--search {text}: LOW must be at least 0 and less than HIGH, and COUNT at least 2")
    return SearchAxis(field, tuple(_text(value) for value in _spread(low, high, count)), True)


def planned_trials(axes: Sequence[SearchAxis], share: float, halving: bool) -> dict[float, int]:
    """Share of a full training -> number of trials per model, extensions not counted; empty without axes."""
    points = len(_products(axes)) if axes else 0
    if halving and points > 2:
        return {share * _FIRST_RUNG: points, share: math.ceil(points / 2)}
    return {share: points} if points else {}


def search(
    request: RunRequest,
    models: Sequence[str],
    changes_for: Callable[[str], Mapping[str, str]],
    axes: Sequence[SearchAxis],
    share: float,
    halving: bool,
    run_trials: RunTrials,
) -> list[Choice]:
    """Try every point of the grid for every model, extend once past an edge, and choose on validation.

    Args:
        request: everything but model and point; its seed is moved by `SEED_OFFSET`.
        models: names, which all get the same points.
        changes_for: the `--set` changes of a model.
        axes: the grid.
        share: of the full training, for each trial.
        halving: train all points for a quarter of that first and go on with the better half, whatever the model.
        run_trials: gives the results of requests, in order.
    """
    higher_is_better = resolve(dataclasses.replace(request, model=models[0])).task.higher_is_better
    grid = [tuple(zip((axis.field for axis in axes), values, strict=True)) for values in _products(axes)]
    tried: dict[str, list[Trial]] = {model: [] for model in models}

    def run(points: Mapping[str, Sequence[Point]], part: float) -> None:
        pairs = [(model, point) for model in models for point in points.get(model, ())]
        requests = [
            _trial_request(request, model, {**changes_for(model), **dict(point)}, part) for model, point in pairs
        ]
        for (model, point), result in zip(pairs, run_trials(requests), strict=True):
            tried[model].append(_trial(model, point, part, result))

    points: dict[str, Sequence[Point]] = dict.fromkeys(models, grid)
    if halving and len(grid) > 2:
        run(points, share * _FIRST_RUNG)
        survivors = math.ceil(len(grid) / 2)
        points = {
            model: [trial.point for trial in _ranked(tried[model], share * _FIRST_RUNG, higher_is_better)[:survivors]]
            for model in models
        }
    run(points, share)
    best = {model: _ranked(tried[model], share, higher_is_better)[0].point for model in models}
    run({model: _extension(axes, best[model]) for model in models}, share)
    return [_choose(model, tried[model], share, axes, higher_is_better) for model in models]


def _choose(
    model: str, trials: Sequence[Trial], share: float, axes: Sequence[SearchAxis], higher_is_better: bool
) -> Choice:
    best = _ranked(trials, share, higher_is_better)[0]
    if best.figure is None:
        raise RequestError(f"every trial of the search failed for model {model} ({best.failure}); choose another range")
    finished = [dict(trial.point) for trial in trials if trial.share == share]
    at_edge = []
    for axis in axes:
        if axis.is_range:
            values = [float(point[axis.field]) for point in finished]
            if float(dict(best.point)[axis.field]) in (min(values), max(values)):
                at_edge.append(axis.field)
    return Choice(model, best.point, tuple(trials), tuple(at_edge))


def _ranked(trials: Sequence[Trial], share: float, higher_is_better: bool) -> list[Trial]:
    """Trials of that share, best first; failed and non-finite ones last, ties in the order tried."""
    sign = -1.0 if higher_is_better else 1.0

    def key(trial: Trial) -> float:
        return math.inf if trial.figure is None or not math.isfinite(trial.figure) else sign * trial.figure

    return sorted((trial for trial in trials if trial.share == share), key=key)


def _extension(axes: Sequence[SearchAxis], best: Point) -> list[Point]:
    """Points past the edges at which the best one lies, one axis at a time."""
    chosen = dict(best)
    further = []
    for axis in axes:
        for value in axis.beyond(chosen[axis.field]):
            further.append(tuple({**chosen, axis.field: value}.items()))
    return further


def _trial_request(request: RunRequest, model: str, changes: Mapping[str, str], share: float) -> RunRequest:
    """A shortened run of its own schedule that is measured on validation."""
    whole = dataclasses.replace(
        request, model=model, changes=changes, seed=request.seed + SEED_OFFSET, split="validation"
    )
    if request.budget_target is not None:
        return dataclasses.replace(whole, budget_target=request.budget_target * share)
    trainer = resolve(whole).trainer
    steps = max(1, round(trainer.steps * share))
    shortened = {"steps": f"{steps}", "warmup_steps": f"{min(steps - 1, round(trainer.warmup_steps * share))}"}
    kept = {key: text for key, text in changes.items() if key.removeprefix("trainer.") not in shortened}
    return dataclasses.replace(whole, changes={**kept, **shortened})


def _trial(model: str, point: Point, share: float, result: Mapping[str, Any]) -> Trial:
    failure = None if result["status"] == "complete" else result["failure"]["reason"]
    figure = None if failure else overall(dict(result))
    cost = (result.get("tokens", 0), result.get("seconds", 0.0), result.get("training_flops", 0))
    return Trial(model, point, share, figure, *cost, failure)


def _products(axes: Sequence[SearchAxis]) -> list[tuple[str, ...]]:
    return list(itertools.product(*(axis.values for axis in axes)))


def _spread(low: float, high: float, count: int) -> list[float]:
    """Equal ratios from a positive low, equal steps from zero."""
    places = [index / (count - 1) for index in range(count)]
    if low > 0:
        return [low * (high / low) ** place for place in places]
    return [low + (high - low) * place for place in places]


def _text(value: float) -> str:
    """Three digits: what a table shows is what was run."""
    return f"{float(f'{value:.3g}'):g}"
