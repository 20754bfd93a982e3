"""What a comparison is going to do, as a table."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from seqbench.accounting.size_budget import TOLERANCE
from seqbench.comparing.estimate import ModelEstimate
from seqbench.comparing.search import Outlook
from seqbench.report.document import Document, Line, Row, Sheet
from seqbench.report.results import percent
from seqbench.training.progress import duration

_HEADINGS = (
    *("model", "target", "parameters", "deviation", "FLOPs/token", "state KiB", "time per run"),
    *("width", "depth"),
)


@dataclass(frozen=True)
class Work:
    """How much of a comparison is left to do.

    Attributes:
        runs: number of final runs.
        missing: label -> number of final runs without a result yet.
        jobs: runs side by side.
        outlook: of the search; None without one.
        borrowed: label of what is left of a model without a part -> the model whose found point it is to use.
    """

    runs: int
    missing: Mapping[str, int]
    jobs: int
    outlook: Outlook | None = None
    borrowed: Mapping[str, str] = field(default_factory=dict)

    def trials(self, label: str) -> Mapping[float, int]:
        """Share of a full training -> number of trials that are left to do for a model."""
        return self.outlook.missing.get(label, {}) if self.outlook is not None else {}


def plan_report(estimates: Sequence[ModelEstimate], work: Work) -> Document:
    """Sizes of the models, then runs, FLOPs, time and disk of what is left to do."""
    known = [estimate for estimate in estimates if estimate.problem is None]
    parts: list[Sheet | Line] = [_sizes(known)] if known else []
    parts += [
        Line(f"{entry.label} cannot be estimated: {entry.problem}", "red") for entry in estimates if entry.problem
    ]
    parts += [Line(text, "yellow") for text in _unmatched(known)]
    parts += [Line(f"{label} takes the point that is found for {whole}") for label, whole in work.borrowed.items()]
    trials = {estimate.label: work.trials(estimate.label) for estimate in estimates}
    data = {
        "models": [dataclasses.asdict(estimate) for estimate in estimates],
        "to_do": dict(work.missing),
        "trials_to_do": {label: sum(shares.values()) for label, shares in trials.items()},
        "side_by_side": work.jobs,
    }
    return Document([*parts, Line(_runs(work)), Line(_costs(known, work))], data)


def nothing_to_do(runs: int, outlook: Outlook | None) -> Document:
    """That all of a comparison is stored, the trials of its search included."""
    choices = outlook.choices if outlook is not None else None
    trials = sum(len(choice.trials) for choice in choices or ())
    found = _counted(runs, "run") + (f" and {_counted(trials, 'trial')} of the search" if trials else "")
    return Document([Line(f"nothing to do, all is stored: {found}")], {"to_do": {}, "trials_to_do": {}})


def _sizes(estimates: Sequence[ModelEstimate]) -> Sheet:
    rows = [
        Row(
            (
                estimate.label,
                "-" if estimate.target is None else f"{estimate.target:,}",
                f"{estimate.achieved:,}",
                "-" if estimate.deviation is None else f"{estimate.deviation:+.2%}",
                f"{estimate.flops_per_token:.3g}",
                f"{estimate.state_bytes / 1024:,.1f}",
                duration(estimate.seconds) if estimate.flops else "-",
                estimate.width,
                estimate.depth,
            )
        )
        for estimate in estimates
    ]
    return Sheet("", _HEADINGS, rows, prose=(7, 8))


def _unmatched(estimates: Sequence[ModelEstimate]) -> Iterator[str]:
    for estimate in estimates:
        if estimate.deviation is not None and abs(estimate.deviation) > TOLERANCE:
            yield f"{estimate.label} is unmatched: {percent(estimate.deviation)} from its target"


def _runs(work: Work) -> str:
    text = f"{sum(work.missing.values())} of {_counted(work.runs, 'run')} to do"
    if work.outlook is not None and work.outlook.choices is None:
        trials = sum(sum(shares.values()) for shares in work.outlook.missing.values())
        text += f", after {_counted(trials, 'trial')} of a search"
        if work.outlook.extensions:
            text += f" (up to {work.outlook.extensions} more where the best point lies at an edge)"
    return f"{text}; {work.jobs} side by side"


def _costs(estimates: Sequence[ModelEstimate], work: Work) -> str:
    """Of runs and trials together: a trial counts as its share of a run, and takes as much disk."""
    seconds = flops = disk = 0.0
    for estimate in estimates:
        runs, trials = work.missing.get(estimate.label, 0), work.trials(estimate.label)
        whole = runs + sum(share * count for share, count in trials.items())
        seconds += estimate.seconds * whole / work.jobs
        flops += estimate.flops * whole
        disk += estimate.disk_bytes * (runs + sum(trials.values()))
    uncounted = "evaluation" if work.outlook is None or not work.outlook.extensions else "evaluation and further trials"
    return (
        f"about {duration(seconds)} of training here, {flops:.3g} FLOPs, {disk / 2**20:,.0f} MiB of disk; {uncounted}"
        " not counted"
    )


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
