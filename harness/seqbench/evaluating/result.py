"""What result.json says of a run."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel

from seqbench.accounting.counting import FLOP_CONVENTION, count_parameters, non_embedding
from seqbench.contracts import Evaluation
from seqbench.errors import Circumstance
from seqbench.planning.plan import RunPlan
from seqbench.planning.task_data import config_identity
from seqbench.store.attempts import in_words
from seqbench.store.run_folder import SCHEMA
from seqbench.training.matrices import describe_split
from seqbench.training.trainer import TrainingState

# State sizes are stored for the longest training sequence and for these lengths.
_STATE_LENGTHS = (1024, 65536)


def header(plan: RunPlan) -> dict[str, Any]:
    """What the plan alone says of a run."""
    task = plan.task
    return {
        "schema": SCHEMA,
        "status": "complete",
        "hash": plan.run_hash,
        "model": {
            "name": plan.model_name,
            "ablation": plan.ablation,
            "config": dataclasses.asdict(plan.tested_config),
            "initial_weights": _source(plan),
        },
        "task": {
            "name": plan.task_name,
            "config": config_identity(task),
            "data": dict(task.data_identity()),
            "primary_metric": task.primary_metric,
            "higher_is_better": task.higher_is_better,
            "primary_coordinate": task.primary_coordinate,
        },
        "seed": plan.seed,
        "split": plan.split,
        "precision": plan.precision,
        "device": plan.device.type,
        "compiled": plan.compiled,
    }


def _source(plan: RunPlan) -> dict[str, str] | None:
    weights = plan.initial_weights
    return None if weights is None else {"name": weights.name, "sha256": weights.sha256}


def _initialisation(plan: RunPlan) -> dict[str, str]:
    """The confound that weights from elsewhere are, instead of the plugin's own initialisation."""
    weights = plan.initial_weights
    return {} if weights is None else {"initialisation": f"weights of {weights.name} ({weights.sha256[:8]})"}


def _matrices(plan: RunPlan, model: PreTrainedModel) -> dict[str, str]:
    """Which parameters weight decay, and Muon where it was asked for, fall on."""
    if not plan.task.trains:
        return {}
    split = describe_split(model, lambda name: plan.model.matrix_parts(plan.model_config, name))
    return {f"decay{' and Muon' if plan.trainer.optimizer == 'muon' else ''} on": split}


def facts(plan: RunPlan, model: PreTrainedModel) -> dict[str, Any]:
    """What is known of a model before it trains."""
    plugin, config, task = plan.model, plan.tested_config, plan.task
    parameters = count_parameters(plugin, model)
    flops = plugin.flops(config, task.longest_sequence)
    lengths = sorted({task.longest_sequence, *_STATE_LENGTHS})
    return {
        "parameters": parameters,
        "parameters_total": sum(parameters.values()),
        "parameters_non_embedding": non_embedding(parameters),
        "flops": {
            "convention": FLOP_CONVENTION,
            "sequence_length": task.longest_sequence,
            "forward_per_token": flops.forward_total / task.longest_sequence,
            "training_per_token": flops.training_total / task.longest_sequence,
            "forward_by_component": dict(flops.forward),
        },
        "state_bytes": {str(length): plugin.state_bytes(config, length) for length in lengths},
        "attention_reach": plugin.attention_reach(config),
        "receptive_field": plugin.receptive_field(config),
        "confounds": plugin.confounds(config) | _matrices(plan, model) | _initialisation(plan),
        "notes": task.report_notes(plugin.attention_reach(config)),
        "published": [dataclasses.asdict(score) for score in task.published()],
    }


def outcome(plan: RunPlan, state: TrainingState, evaluation: Evaluation) -> dict[str, Any]:
    """What training took and what the test measured."""
    return {
        "budgets": [*_parameter_budget(plan), _spent(plan.budget.kind, plan.budget.target, plan.budget.spent(state))],
        "steps": state.step,
        "tokens": state.tokens,
        "training_flops": state.flops,
        "seconds": state.seconds,
        **({"compile_seconds": state.compile_seconds} if plan.compiled else {}),
        "micro_batch_size": state.micro_batch_size,
        "data_order_sha256": state.data_order,
        "contamination": _contamination(plan, state.step),
        "measurements": [dataclasses.asdict(measurement) for measurement in evaluation.measurements],
    }


def _contamination(plan: RunPlan, steps: int) -> list[dict[str, Any]]:
    """What of the evaluation sets the model saw in so many steps; empty where the task does not count it."""
    counted = plan.task.contamination(plan.seed, steps, plan.trainer.batch_size)
    return [dataclasses.asdict(each) for each in counted]


def with_kernel_paths(plan: RunPlan, result: dict[str, Any], taken: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The result with the paths of operations that ran in place of what the plugin says of its kernels.

    `taken` is operation -> names of paths; a model that runs none of the operations keeps its plugin's words.
    """
    words = ", ".join(f"{operation} by {' and '.join(paths)}" for operation, paths in taken.items())
    confounds = result["confounds"] | ({"kernel path": words} if words else {})
    return {**result, "confounds": confounds, "kernels": {"requested": plan.kernels, "taken": dict(taken)}}


def _parameter_budget(plan: RunPlan) -> list[dict[str, Any]]:
    budget, match = plan.parameter_budget, plan.match
    if budget is None or match is None:
        return []
    return [_spent(budget.kind, budget.target, match.achieved)]


def _spent(kind: str, target: float, achieved: float) -> dict[str, Any]:
    deviation = (achieved - target) / target if target else 0.0
    return {"kind": kind, "target": target, "achieved": achieved, "deviation": deviation}


def failed(plan: RunPlan, facts: dict[str, Any], reason: str, message: str) -> dict[str, Any]:
    """The result of a run that failed, with what was known before."""
    return {
        **header(plan),
        **facts,
        "status": "failed",
        "failure": {"reason": reason, "message": message},
        "budgets": _parameter_budget(plan),
        "measurements": [],
    }


def unfinished(plan: RunPlan, circumstance: Circumstance, reasons: Sequence[str]) -> dict[str, Any]:
    """What is said in a result's place of a run that circumstance has ended, for `reasons`, as often as they are."""
    message = f"{in_words(reasons)}; will be tried again (last: {circumstance.detail})"
    return {**failed(plan, {}, circumstance.reason, message), "status": Circumstance.status}
