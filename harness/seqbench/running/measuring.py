"""Measuring the trained model of a run as its plan says."""

from typing import Any

from transformers import PreTrainedModel

from seqbench.contracts import Evaluation
from seqbench.environment import fixed_surroundings
from seqbench.evaluating.predictor import ModelPredictor
from seqbench.planning.initial_weights import load_weights
from seqbench.planning.plan import RunPlan
from seqbench.store.records import EvaluationRecords
from seqbench.store.run_folder import RunFolder
from seqbench.training.progress import TrainingProgress


@fixed_surroundings()
def load_trained(plan: RunPlan, folder: RunFolder) -> PreTrainedModel:
    """The model that the plan tests, with the weights of the finished run in `folder`."""
    return load_weights(plan.model.build(plan.tested_config), folder.model)


def predictor_of(plan: RunPlan, model: PreTrainedModel, **where: Any) -> ModelPredictor:
    """The model that the plan tests as a task sees it, moved to the plan's device; `where` as for `ModelPredictor`."""
    return ModelPredictor.of(plan.model, plan.tested_config, model, plan.device, plan.precision, **where)


@fixed_surroundings()
def evaluate_trained(plan: RunPlan, model: PreTrainedModel, folder: RunFolder | None = None) -> Evaluation:
    """Measure a trained model as the plan says: on its device, in its precision, on its split.

    With `folder`, parts that an earlier process has measured there are taken from it; None measures everything again.
    """
    records = None if folder is None else records_of(plan, folder)
    with TrainingProgress(f"{plan.label} seed {plan.seed}", 1.0) as progress:
        return plan.task.evaluate(predictor_of(plan, model, records=records, tell=progress.evaluated), plan.split)


def records_of(plan: RunPlan, folder: RunFolder) -> EvaluationRecords:
    """Of the final test: only weights that are trained to the end are measured with them."""
    return EvaluationRecords(folder.path / "evaluation.jsonl", f"{plan.run_hash} {plan.split}")
