"""An equal search for every architecture: the same grid of trainer settings, chosen on validation, its cost counted."""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqbench.contracts import describe_settings, with_settings
from seqbench.contracts.quantities import LARGEST_WHOLE, number, whole_number
from seqbench.contracts.suggestions import did_you_mean
from seqbench.errors import Circumstance, RequestError
from seqbench.evaluating.measured import overall
from seqbench.planning.changes import trainer_field
from seqbench.planning.plan import resolve
from seqbench.planning.request import RunRequest
from seqbench.training.settings import SEARCHABLE, TrainerSettings

# Trials have seeds of their own, far from those of the final runs, so that nothing is chosen on a final run's luck.
SEED_OFFSET = 1_000_000

# Of each model: already a thousand times what a run without a search costs.
_MOST_POINTS = 1000

# Fields are looked at one by one: with as many steps, no warm-up is too long.
_PERMISSIVE = TrainerSettings(steps=LARGEST_WHOLE)

# How many points an edge is extended by.
_EXTENSION = 2

# The share of a trial that the first rung of a halving search trains for.
_FIRST_RUNG = 0.25

Point = tuple[tuple[str, str], ...]
Results = Sequence[Mapping[str, Any]]


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
        extended: fields of which values beyond the range were tried.
        at_edge: fields whose chosen value is still the outermost one tried, after the extension.
    """

    model: str
    point: Point
    trials: tuple[Trial, ...]
    extended: tuple[str, ...]
    at_edge: tuple[str, ...]


@dataclass(frozen=True)
class Outlook:
    """How much of a search is left to do.

    Attributes:
        missing: model -> share of a full training -> number of trials without a result, extensions not counted.
        extensions: the most trials that may follow them, of all models together, where a best point lies at an edge.
        choices: what the stored trials decide, one per model; None while some are missing.
    """

    missing: Mapping[str, Mapping[float, int]]
    extensions: int
    choices: Sequence[Choice] | None


@dataclass(frozen=True)
class _Stage:
    """Trials that can run side by side: what they show decides the next ones.

    Attributes:
        trials: model, point and share of the full training of each.
        later: share -> number of trials per model in stages that follow in any case.
        extensions: the most trials that may follow beyond these.
    """

    trials: Sequence[tuple[str, Point, float]]
    later: Mapping[float, int]
    extensions: int


def parse_axes(texts: Sequence[str], changes: Mapping[str, str]) -> list[SearchAxis]:
    """The grid of a search, of axes as `parse_axis` takes them.

    Raises RequestError for a field that is searched twice, or that is set in `changes` too, and for too many points.
    """
    axes: dict[str, SearchAxis] = {}
    fixed = {trainer_field(key): key for key in changes}
    for text in texts:
        axis = parse_axis(text)
        if axis.field in axes:
            raise RequestError(f"--search {text}: {axis.field} is searched already; give it once")
        if axis.field in fixed:
            key = fixed[axis.field]
            raise RequestError(
                f"--search {text} chooses {axis.field}, and it is given as {key}={changes[key or '']}; leave one of"
                " them out"
            )
        axes[axis.field] = axis
    points = math.prod(len(axis.values) for axis in axes.values())
    if points > _MOST_POINTS:
        raise RequestError(
            f"--search asks for {points:,} points of each model; at most {_MOST_POINTS:,} are tried: give fewer values"
        )
    return list(axes.values())


def parse_axis(text: str) -> SearchAxis:
    """`lr=1e-4:1e-2:5` (five values from ... to ..., in equal ratios) or `optimizer=adamw,muon`.

    Raises RequestError for a field that is none or would change the budget, and for values that are none of it.
    """
    name, equals, values = text.partition("=")
    field = trainer_field(name.strip()) or name.strip()
    infos = describe_settings(TrainerSettings)
    if not equals or not values.strip():
        raise RequestError(
            f"--search takes FIELD=LOW:HIGH:COUNT or FIELD=A,B,C, for example lr=1e-4:1e-2:5, not {text!r}"
        )
    if field not in infos:
        raise RequestError(f"--search {text}: the trainer has no field {field!r}{did_you_mean(field, infos)}")
    if field not in SEARCHABLE:
        raise RequestError(
            f"--search {text}: {field} is no choice of how well a model learns from the budget, which every point is"
            f" to have alike; what can be searched: {', '.join(SEARCHABLE)}"
        )
    axis = _range(text, field, values) if ":" in values else _list(text, field, values)
    parsed = [getattr(with_settings(_PERMISSIVE, {field: value}, f"--search {text}"), field) for value in axis.values]
    if len(set(parsed)) < len(parsed):
        raise RequestError(f"--search {text}: {', '.join(axis.values)} are not all different; give each value once")
    return axis


def _list(text: str, field: str, values: str) -> SearchAxis:
    chosen = tuple(value.strip() for value in values.split(",") if value.strip())
    if len(chosen) < 2:
        raise RequestError(f"--search {text}: give at least two different values")
    return SearchAxis(field, chosen, False)


def _range(text: str, field: str, values: str) -> SearchAxis:
    try:
        low_text, high_text, count_text = values.split(":")
        low, high, count = number(low_text), number(high_text), whole_number(count_text)
    except ValueError:
        raise RequestError(f"--search {text}: a range reads LOW:HIGH:COUNT, for example 1e-4:1e-2:5") from None
    if not 0 <= low < high or not 2 <= count <= _MOST_POINTS:
        raise RequestError(
            f"--search {text}: LOW must be at least 0 and less than HIGH, and COUNT from 2 to {_MOST_POINTS:,}"
        )
    return SearchAxis(field, tuple(_text(value) for value in _spread(low, high, count)), True)


@dataclass(frozen=True)
class Search:
    """Every point of the grid for every model, one extension past an edge, and a choice on validation.

    Attributes:
        requests: by model, which all get the same points: everything but the point; seeds are moved by `SEED_OFFSET`.
        axes: the grid; at least one.
        share: of the full training, for each trial.
        halving: train all points for a quarter of that first and go on with the better half, whatever the model.
    """

    requests: Mapping[str, RunRequest]
    axes: Sequence[SearchAxis]
    share: float
    halving: bool

    def carry_out(self, run_trials: Callable[[Sequence[RunRequest]], Results]) -> list[Choice]:
        """Search with `run_trials`, which gives the results of requests, in order; one choice per model.

        Raises Circumstance when a trial is unfinished: it has not lost, and nothing can be chosen without it.
        """
        stages = self._stages()
        try:
            stage = next(stages)
            while True:
                results = run_trials(self._trial_requests(stage))
                _require_finished(results)
                stage = stages.send(results)
        except StopIteration as end:
            return list(end.value)

    def look_ahead(self, find: Callable[[RunRequest], Mapping[str, Any] | None]) -> Outlook:
        """What is left to do where `find` gives the stored result of a request, or None."""
        stages = self._stages()
        try:
            stage = next(stages)
            while True:
                results = [find(request) for request in self._trial_requests(stage)]
                known = [result for result in results if result is not None]
                if len(known) < len(results):
                    break
                stage = stages.send(known)
        except StopIteration as end:
            return Outlook({}, 0, end.value)
        missing = {model: Counter(stage.later) for model in self.requests}
        for (model, _, share), result in zip(stage.trials, results, strict=True):
            missing[model][share] += result is None
        return Outlook(missing, stage.extensions, None)

    def _stages(self) -> Generator[_Stage, Results, list[Choice]]:
        """One stage after the other; takes the results of each, and returns the choices."""
        higher_is_better = resolve(next(iter(self.requests.values()))).task.higher_is_better
        grid = [tuple(zip((axis.field for axis in self.axes), values, strict=True)) for values in _products(self.axes)]
        tried: dict[str, list[Trial]] = {model: [] for model in self.requests}

        def stage(
            points: Mapping[str, Sequence[Point]], share: float, later: Mapping[float, int], extensions: int
        ) -> Generator[_Stage, Results, None]:
            trials = [(model, point, share) for model in self.requests for point in points.get(model, ())]
            if trials:
                results = yield _Stage(trials, later, extensions)
                for (model, point, share), result in zip(trials, results, strict=True):
                    tried[model].append(_trial(model, point, share, result))

        points: dict[str, Sequence[Point]] = dict.fromkeys(self.requests, grid)
        extensions = len(self.requests) * _EXTENSION * sum(axis.is_range for axis in self.axes)
        if self.halving and len(grid) > 2:
            first, survivors = self.share * _FIRST_RUNG, math.ceil(len(grid) / 2)
            yield from stage(points, first, {self.share: survivors}, extensions)
            for model in self.requests:
                ranked = _ranked(tried[model], first, higher_is_better)
                points[model] = [trial.point for trial in ranked[:survivors]]
        yield from stage(points, self.share, {}, extensions)
        best = {model: _ranked(tried[model], self.share, higher_is_better)[0].point for model in self.requests}
        yield from stage({model: _extension(self.axes, best[model]) for model in best}, self.share, {}, 0)
        return [_choose(model, tried[model], self.share, self.axes, higher_is_better) for model in self.requests]

    def _trial_requests(self, stage: _Stage) -> list[RunRequest]:
        return [_trial_request(self.requests[model], point, share) for model, point, share in stage.trials]


def _require_finished(results: Results) -> None:
    unfinished = [result["failure"] for result in results if result["status"] == Circumstance.status]
    if unfinished:
        trials = f"{len(unfinished)} of {len(results)} trials of the search have no result"
        raise Circumstance(unfinished[0]["reason"], f"{trials}; the first: {unfinished[0]['message']}")


def _choose(
    model: str, trials: Sequence[Trial], share: float, axes: Sequence[SearchAxis], higher_is_better: bool
) -> Choice:
    best = _ranked(trials, share, higher_is_better)[0]
    if best.figure is None:
        raise RequestError(f"every trial of the search failed for model {model} ({best.failure}); choose another range")
    # Those too that a halving search has dropped: they lie between a survivor and the edge.
    tried = [dict(trial.point) for trial in trials]
    extended, at_edge = [], []
    for axis in axes:
        if axis.is_range:
            values = [float(point[axis.field]) for point in tried]
            if any(point[axis.field] not in axis.values for point in tried):
                extended.append(axis.field)
            if float(dict(best.point)[axis.field]) in (min(values), max(values)):
                at_edge.append(axis.field)
    return Choice(model, best.point, tuple(trials), tuple(extended), tuple(at_edge))


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


def _trial_request(request: RunRequest, point: Point, share: float) -> RunRequest:
    """A shortened run of its own schedule that is measured on validation."""
    changes = {**request.changes, **dict(point)}
    whole = dataclasses.replace(request, changes=changes, seed=request.seed + SEED_OFFSET, split="validation")
    if request.budget_target is not None:
        target = request.budget_target * share
        # Only seconds have fractions.
        return dataclasses.replace(
            whole, budget_target=target if request.budget_kind == "seconds" else max(1, round(target))
        )
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
