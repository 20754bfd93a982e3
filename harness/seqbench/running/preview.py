"""What a run would do and cost: `--dry-run`."""

import dataclasses
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from seqbench.accounting.counting import FLOP_CONVENTION, count_parameters, non_embedding
from seqbench.contracts import IGNORED_LABEL
from seqbench.environment import available_bytes
from seqbench.planning.fresh_model import prepare_model
from seqbench.planning.memory_estimate import gibibytes
from seqbench.planning.plan import RunPlan
from seqbench.rehearsal.compilation import require_compilable
from seqbench.running.runner import examine, rehearse_run
from seqbench.store.forms import BUDGET_UNITS
from seqbench.store.place import require_place
from seqbench.training.progress import duration

# Tokens of the timed training step; a small share of a batch, scaled up.
_TIMED_TOKENS = 2048


def preview(plan: RunPlan, folder: Path, as_json: bool) -> str:
    """The resolved plan with sizes, FLOPs, memory and a time estimate, as text or JSON.

    Raises RequestError when the run would not fit into memory, its folder cannot be written, its model fails a clause,
    or what follows training would fail.
    """
    require_place(folder)
    content = _content(plan, folder)
    examine(plan, store=None)
    require_compilable(plan)
    with tempfile.TemporaryDirectory() as place:
        rehearse_run(plan, Path(place))
    return json.dumps(content, indent=2) if as_json else _text(content)


def _content(plan: RunPlan, folder: Path) -> dict[str, Any]:
    model, memory = prepare_model(plan)
    parameters = count_parameters(plan.model, model)
    available = available_bytes(plan.device)
    length, trainer = plan.task.longest_sequence, plan.trainer
    cost = estimate_training(plan, model)
    micro = trainer.micro_batch_size or trainer.batch_size
    return {
        "run": str(folder),
        "model": {"name": plan.model_name, **dataclasses.asdict(plan.model_config)},
        "task": {"name": plan.task_name, **dataclasses.asdict(plan.task.config)},
        "trainer": dataclasses.asdict(trainer),
        "seed": plan.seed,
        "precision": plan.precision,
        "device": plan.device.type,
        "compiled": plan.compiled,
        "parameters": parameters,
        "parameters_total": sum(parameters.values()),
        "parameters_non_embedding": non_embedding(parameters),
        "attention_reach": plan.model.attention_reach(plan.model_config),
        "receptive_field": plan.model.receptive_field(plan.model_config),
        "state_bytes": plan.model.state_bytes(plan.model_config, length),
        "flop_convention": FLOP_CONVENTION,
        "budget": dataclasses.asdict(plan.budget),
        "training_flops": cost.flops,
        "memory_bytes": memory.total(min(micro, trainer.batch_size)),
        "memory_available_bytes": available,
        "seconds": cost.seconds,
    }


def _text(content: dict[str, Any]) -> str:
    lines = [f"run        {content['run']}"]
    for section in ("model", "task", "trainer"):
        fields = "  ".join(f"{key}={value}" for key, value in content[section].items())
        lines.append(f"{section:<10} {fields}")
    groups = ", ".join(f"{group} {count:,}" for group, count in content["parameters"].items())
    reach, field = content["attention_reach"], content["receptive_field"]
    lines += [
        f"seed       {content['seed']}, {content['precision']} on {content['device']}"
        f"{', by torch.compile' if content['compiled'] else ''}",
        f"parameters {content['parameters_total']:,} ({content['parameters_non_embedding']:,} non-embedding): {groups}",
        f"reach      attention {'unbounded' if reach is None else f'{reach:,} tokens'}, receptive field"
        f" {'unbounded' if field is None else f'{field:,} tokens'}",
        f"state      {content['state_bytes']:,} bytes per sequence of the longest training length",
        f"training   {content['budget']['target']:,} {BUDGET_UNITS[content['budget']['kind']]}, at most"
        f" {content['training_flops']:.3g} FLOPs ({content['flop_convention']})",
        f"memory     about {gibibytes(content['memory_bytes'])} of"
        f" {gibibytes(content['memory_available_bytes'])} available",
        f"time       about {duration(content['seconds'])} of training on this machine, evaluation not counted"
        f"{'; timed without torch.compile' if content['compiled'] else ''}",
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class TrainingCost:
    """What one run's training takes at most, if every sequence had the longest length.

    Attributes:
        tokens, flops: of the whole training.
        seconds: on this machine, from one timed step.
    """

    tokens: float
    flops: float
    seconds: float


def estimate_training(plan: RunPlan, model: PreTrainedModel) -> TrainingCost:
    """The cost of a plan's training under its budget; times a forward and backward pass of the model."""
    if not plan.task.trains or plan.budget.target <= 0:
        return TrainingCost(0.0, 0.0, 0.0)
    length, per_token_seconds = plan.task.estimated_sequence, _seconds_per_token(plan, model)
    per_token_flops = plan.model.flops(plan.model_config, length).training_total / length
    tokens = {
        "steps": plan.budget.target * plan.trainer.batch_size * length,
        "tokens": plan.budget.target,
        "flops": plan.budget.target / per_token_flops if per_token_flops else 0.0,
        "seconds": plan.budget.target / per_token_seconds,
    }[plan.budget.kind]
    return TrainingCost(tokens, tokens * per_token_flops, tokens * per_token_seconds)


def _seconds_per_token(plan: RunPlan, model: PreTrainedModel) -> float:
    """Of a forward and backward pass on a few of the first batch's rows; the optimizer's share is small."""
    trainer = plan.trainer
    batch = plan.task.training_batch(plan.seed, 0, trainer.batch_size)
    # The first batch may be a short one: batches are timed per token.
    rows = max(1, min(trainer.batch_size, _TIMED_TOKENS // batch.input_ids.shape[1]))
    sample = batch.rows(0, rows).to(plan.device)
    nn.Module.to(model, plan.device)
    model.train()
    seconds = 0.0
    # The first pass warms up.
    for _ in range(2):
        started = time.perf_counter()
        with torch.autocast(plan.device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
            logits = model(sample.input_ids, attention_mask=sample.attention_mask).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), sample.labels.flatten(), ignore_index=IGNORED_LABEL)
        loss.backward()
        if plan.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    return seconds / sample.input_ids.numel()
