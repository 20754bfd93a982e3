"""The model of a plan before it is trained, and whether there is memory for the run."""

from collections.abc import Callable

import torch
from transformers import PreTrainedModel, set_seed

from seqbench.environment import available_bytes, fixed_surroundings
from seqbench.errors import Circumstance, RequestError, RunFailure
from seqbench.planning.initial_weights import load_weights
from seqbench.planning.memory_estimate import MemoryEstimate, estimate_memory, require_memory, require_weights
from seqbench.planning.plan import RunPlan
from seqbench.plugins.kernels import requested_paths
from seqbench.surroundings.memory_pressure import total_bytes


def build_model(plan: RunPlan) -> PreTrainedModel:
    """The plan's model on the CPU: freshly initialised from the plan's seed, or with its initial weights."""
    set_seed(plan.seed)
    model = plan.model.build(plan.model_config)
    if not isinstance(model, PreTrainedModel):
        raise RunFailure(
            "error",
            f"build() of model {plan.model_name} returns a {type(model).__qualname__}, no transformers.PreTrainedModel,"
            " and what is trained could not be saved: derive the model from it",
        )
    return model if plan.initial_weights is None else load_weights(model, plan.initial_weights.folder)


@fixed_surroundings()
def prepare_model(plan: RunPlan) -> tuple[PreTrainedModel, MemoryEstimate]:
    """The plan's model, and the memory that the run will take.

    Raises RequestError when the machine has not as much, and Circumstance when others hold it.
    """
    _require(
        lambda available: require_weights(plan, available), torch.device("cpu"), available_bytes(torch.device("cpu"))
    )
    available = available_bytes(plan.device)
    model = build_model(plan)
    # It is estimated on the CPU, where a GPU's paths cannot serve.
    with requested_paths(plan.kernels if plan.device.type == "cpu" else ""):
        estimate = estimate_memory(plan, model)
    _require(lambda available: require_memory(plan, estimate, available), plan.device, available)
    return model, estimate


def _require(check: Callable[[int], None], device: torch.device, available: int) -> None:
    """Check with what is available; where the whole device would do, others hold the rest and may give it back."""
    try:
        check(available)
    except RequestError as error:
        check(total_bytes(device))
        raise Circumstance("memory-taken", str(error).splitlines()[0]) from error
