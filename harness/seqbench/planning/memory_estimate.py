"""The memory that a planned run will take, and refusing one that cannot fit."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from seqbench.accounting.counting import parameter_bytes
from seqbench.accounting.meta_build import build_without_memory
from seqbench.errors import RequestError
from seqbench.planning.activations import saved_bytes
from seqbench.planning.plan import RunPlan

# Copies of the weights that training holds: weights, gradients, and two moments of AdamW.
_STATE_COPIES = 4

# Tokens of the forward pass that measures what the backward pass needs per token.
_PROBE_TOKENS = 32


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a training run is expected to hold at its peak.

    Attributes:
        fixed: weights, gradients and optimizer state.
        batch: one whole training batch as the task makes it.
        per_sequence: activations kept for the backward pass of the longest training sequence, logits included.
        evaluation: activations of the longest evaluation sequence.
    """

    fixed: int
    batch: int
    per_sequence: int
    evaluation: int

    def total(self, micro_batch_size: int) -> int:
        """Peak with that many sequences per forward pass."""
        return self.fixed + self.batch + max(self.per_sequence * micro_batch_size, self.evaluation)


def estimate_memory(plan: RunPlan, model: PreTrainedModel) -> MemoryEstimate:
    """Estimate a run's memory from its parameters and a short forward pass of one sequence.

    Activations are taken to grow in proportion to the tokens, as they do for every linear-memory attention and scan;
    `model` must be on the CPU.
    """
    # A task whose model is not trained may have no training text to look at.
    trains = plan.task.trains and plan.budget.target > 0
    length = plan.task.estimated_sequence if trains else plan.task.longest_sequence
    tokens = min(_PROBE_TOKENS, length)
    input_ids = torch.zeros(1, tokens, dtype=torch.int64)
    saved = saved_bytes(model, lambda: model(input_ids))
    # Logits in fp32, their gradient and the loss's own copy.
    logits = 3 * 4 * plan.task.vocab_size
    per_token = saved / tokens + logits
    # Without gradients an activation lives for about one layer; a quarter of what training keeps is a generous share.
    evaluation_per_token = saved / tokens / 4 + logits
    return MemoryEstimate(
        fixed=_STATE_COPIES * parameter_bytes(model),
        # Inputs, labels and mask in int64.
        batch=3 * 8 * length * plan.trainer.batch_size,
        per_sequence=round(per_token * length),
        evaluation=round(evaluation_per_token * plan.task.tokens_per_evaluation_call),
    )


def require_weights(plan: RunPlan, available: int) -> None:
    """Raise RequestError when the model alone is too large; nothing is allocated to find out."""
    try:
        model = build_without_memory(plan.model, plan.model_config)
    except RequestError:
        raise
    except Exception:
        # Not every architecture can be built without memory; the real build shows whether anything is wrong.
        return
    needed = _STATE_COPIES * parameter_bytes(model)
    if needed > available:
        raise RequestError(
            f"this run needs more than {gibibytes(needed)} of memory and {gibibytes(available)} are available\n"
            f"{_too_many_parameters(needed)}"
        )


def require_memory(plan: RunPlan, estimate: MemoryEstimate, available: int) -> None:
    """Raise RequestError when the run cannot fit, with what would."""
    micro = plan.trainer.micro_batch_size or plan.trainer.batch_size
    needed = estimate.total(min(micro, plan.trainer.batch_size))
    if needed <= available:
        return
    message = f"this run needs about {gibibytes(needed)} of memory and {gibibytes(available)} are available"
    room = available - estimate.fixed
    fitting = (room - estimate.batch) // max(1, estimate.per_sequence)
    if estimate.fixed >= available:
        advice = _too_many_parameters(estimate.fixed)
    elif estimate.per_sequence > room:
        advice = (
            f"one training sequence of at most {plan.task.longest_sequence:,} tokens alone takes"
            f" {gibibytes(estimate.per_sequence)}: choose shorter sequences or a smaller model"
        )
    elif estimate.evaluation > room:
        tokens = plan.task.tokens_per_evaluation_call
        advice = f"evaluating {tokens:,} tokens at once is too much: choose shorter test lengths"
    elif fitting < 1:
        advice = f"one batch of data alone takes {gibibytes(estimate.batch)}: choose a smaller batch_size"
    else:
        advice = f"type --set micro_batch_size={fitting} (the batch stays {plan.trainer.batch_size})"
    raise RequestError(f"{message}\n{advice}")


def _too_many_parameters(size: int) -> str:
    return f"its weights, gradients and optimizer state alone take {gibibytes(size)}: choose a smaller preset"


def gibibytes(count: int) -> str:
    """Bytes in GiB (or MiB below a tenth of one) for people."""
    return f"{count / 2**30:.1f} GiB" if count >= 0.1 * 2**30 else f"{count / 2**20:.1f} MiB"
