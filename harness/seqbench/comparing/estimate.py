"""What a grid of runs will take, before it begins: sizes, FLOPs, time and disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seqbench.accounting.counting import count_parameters, non_embedding, parameter_bytes
from seqbench.comparing.grid import GridRun
from seqbench.planning.fresh_model import prepare_model
from seqbench.planning.plan import RunPlan
from seqbench.running.preview import TrainingCost, estimate_training
from seqbench.running.standing import standing_result

# Copies of the weights that a finished run keeps: the model, and one checkpoint with the optimizer's two moments.
_COPIES_ON_DISK = 4


@dataclass(frozen=True)
class ModelEstimate:
    """One model of a grid.

    Attributes:
        label: its name.
        target: parameters asked for, or None.
        achieved: parameters, counted as the target counts, else those outside the vocabulary matrices.
        width: its width axis and value, and what else the size solver changed, as "field=value, field=value".
        depth: in the plugin's words.
        flops_per_token: training FLOPs per token at the longest training sequence.
        state_bytes: carried state after the longest training sequence.
        flops: of one run, at most; 0 where nothing is trained.
        seconds: of one run's training on this machine; 0 where nothing is trained.
        disk_bytes: of one finished run.
        problem: why nothing is known, or None; the run itself will fail for the same reason.
    """

    label: str
    target: int | None
    achieved: int
    width: str
    depth: str
    flops_per_token: float
    state_bytes: int
    flops: float
    seconds: float
    disk_bytes: int
    problem: str | None = None

    @property
    def deviation(self) -> float | None:
        """Of the achieved from the target; None when nothing was asked for."""
        return None if self.target is None else (self.achieved - self.target) / self.target


def estimate_models(grid: Sequence[GridRun]) -> list[ModelEstimate]:
    """One estimate per model label, from its first run; each times one training step on this machine."""
    first: dict[str, RunPlan] = {}
    for cell in grid:
        first.setdefault(cell.plan.label, cell.plan)
    return [_try_to_estimate(plan) for plan in first.values()]


def missing(grid: Sequence[GridRun], runs: Path, retry_failed: bool, limit: float | None) -> list[GridRun]:
    """The runs of the grid that have no standing result in the store `runs`; one may take `limit` seconds."""
    return [cell for cell in grid if standing_result(cell.plan, cell.folder, runs, retry_failed, limit) is None]


def _try_to_estimate(plan: RunPlan) -> ModelEstimate:
    try:
        return _estimate(plan)
    # Whatever is wrong with one model, the others are compared.
    except Exception as error:
        target = plan.parameter_budget.target if plan.parameter_budget is not None else None
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        return ModelEstimate(plan.label, target, 0, "-", "-", 0.0, 0, 0.0, 0.0, 0, problem)


def _estimate(plan: RunPlan) -> ModelEstimate:
    model, _ = prepare_model(plan)
    counts = count_parameters(plan.model, model)
    total = plan.parameter_budget is not None and plan.parameter_budget.total
    axis = plan.model.width_axis
    changed = plan.match.changed if plan.match is not None else {}
    fields = {axis.field: getattr(plan.model_config, axis.field, "-"), **changed}
    length = plan.task.longest_sequence
    # What another run has trained costs nothing here.
    trains = plan.task.trains and plan.trained is plan
    cost = estimate_training(plan, model) if trains else TrainingCost(0.0, 0.0, 0.0)
    return ModelEstimate(
        label=plan.label,
        target=plan.parameter_budget.target if plan.parameter_budget is not None else None,
        achieved=sum(counts.values()) if total else non_embedding(counts),
        width=", ".join(f"{name}={value}" for name, value in fields.items()),
        depth=plan.model.confounds(plan.model_config).get("depth", "-"),
        flops_per_token=plan.model.flops(plan.model_config, length).training_total / length,
        state_bytes=plan.model.state_bytes(plan.model_config, length),
        flops=cost.flops,
        seconds=cost.seconds,
        disk_bytes=_COPIES_ON_DISK * parameter_bytes(model),
    )
