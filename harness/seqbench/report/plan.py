"""What a comparison is going to do, and what a search has found, as tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from seqbench.grid_estimate import ModelEstimate
from seqbench.matching import TOLERANCE
from seqbench.search import Choice, Trial
from seqbench.training.progress import duration


@dataclass(frozen=True)
class Work:
    """How much of a comparison is left to do.

    Attributes:
        runs, missing: final runs, and those without a result yet.
        trials: share of a full training -> number of trials of the search, per model; empty without a search.
        jobs: runs side by side.
    """

    runs: int
    missing: Mapping[str, int]
    trials: Mapping[float, int]
    jobs: int


def plan_report(estimates: Sequence[ModelEstimate], work: Work) -> RenderableType:
    """Sizes of the models, then runs, FLOPs, time and disk of what is left to do."""
    per_model = {
        estimate.label: work.missing.get(estimate.label, 0) + sum(share * n for share, n in work.trials.items())
        for estimate in estimates
    }
    seconds = sum(estimate.seconds * per_model[estimate.label] for estimate in estimates) / work.jobs
    flops = sum(estimate.flops * per_model[estimate.label] for estimate in estimates)
    trials = sum(work.trials.values()) * len(estimates)
    disk = sum(
        estimate.disk_bytes * (work.missing.get(estimate.label, 0) + sum(work.trials.values()))
        for estimate in estimates
    )
    searched = (
        f" and {trials} trials of a search (stored ones are not repeated, extensions come on top)" if trials else ""
    )
    return Group(
        _sizes([estimate for estimate in estimates if estimate.problem is None]),
        *(
            Text(f"{entry.label} cannot be estimated: {entry.problem}", style="red")
            for entry in estimates
            if entry.problem
        ),
        Text(f"{sum(work.missing.values())} of {work.runs} runs to do{searched}, {work.jobs} side by side"),
        Text(
            f"about {duration(seconds)} of training here, {flops:.3g} FLOPs, {disk / 2**20:,.0f} MiB of disk;"
            " evaluation not counted"
        ),
    )


def _sizes(estimates: Sequence[ModelEstimate]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("model", overflow="fold")
    for heading in ("target", "parameters", "deviation", "width", "depth", "FLOPs/token", "state KiB", "time per run"):
        table.add_column(heading, overflow="fold", justify="left" if heading in ("width", "depth") else "right")
    for estimate in estimates:
        table.add_row(
            estimate.label,
            "-" if estimate.target is None else f"{estimate.target:,}",
            f"{estimate.achieved:,}",
            _deviation(estimate.deviation),
            estimate.width,
            estimate.depth,
            f"{estimate.flops_per_token:.3g}",
            f"{estimate.state_bytes / 1024:,.1f}",
            duration(estimate.seconds),
        )
    return table


def _deviation(deviation: float | None) -> str:
    if deviation is None:
        return "-"
    return f"{deviation:+.2%}" + ("" if abs(deviation) <= TOLERANCE else " unmatched")


def search_report(choices: Sequence[Choice], metric: str) -> RenderableType:
    """All trials of all models, the chosen points, and what the search cost."""
    table = Table(box=box.SIMPLE_HEAD, title=f"search: {metric} on the validation set", title_justify="left")
    for heading in ("model", "point", "share", metric, "tokens", "time", ""):
        table.add_column(heading, overflow="fold")
    for choice in choices:
        for trial in choice.trials:
            table.add_row(choice.model, *_cells(trial), _remark(choice, trial))
    lines = [Text(_cost(choice)) for choice in choices]
    return Group(table, *lines)


def _cells(trial: Trial) -> tuple[str, ...]:
    figure = trial.failure or ("not finite" if trial.figure is None else f"{trial.figure:.4f}")
    point = ", ".join(f"{field} {value}" for field, value in trial.point)
    return point, f"{trial.share:g}", figure, f"{trial.tokens:,}", duration(trial.seconds)


def _remark(choice: Choice, trial: Trial) -> str:
    full = max(entry.share for entry in choice.trials)
    return "chosen" if trial.point == choice.point and trial.share == full else ""


def _cost(choice: Choice) -> str:
    tokens, seconds = sum(trial.tokens for trial in choice.trials), sum(trial.seconds for trial in choice.trials)
    edge = f"; {', '.join(choice.at_edge)} still at the edge of what was tried" if choice.at_edge else ""
    return f"{choice.model}: {len(choice.trials)} trials, {tokens:,} tokens, {duration(seconds)} of training{edge}"
