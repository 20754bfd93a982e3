"""Whether what `--compile` asks for can be had, before anything is trained or written."""

from torch import nn

from seqbench.planning.fresh_model import build_model
from seqbench.planning.plan import RunPlan
from seqbench.plugins.kernels import requested_paths
from seqbench.testing.clause import own_draws
from seqbench.training.compilation import require_one_graph

# One would be a batch size that torch.compile makes a constant of.
_ROWS = 2


def require_compilable(plan: RunPlan) -> None:
    """Raise RequestError, with the reason, for a model that is to be compiled and cannot be.

    Tried on the first rows of the first training batch, with a model of its own; nothing of it stays.
    """
    if not (plan.compiled and plan.task.trains and plan.budget.target > 0):
        return
    with own_draws(), requested_paths(plan.kernels):
        model = build_model(plan)
        nn.Module.to(model, plan.device)
        batch = plan.task.training_batch(plan.seed, 0, plan.trainer.batch_size).rows(0, _ROWS).to(plan.device)
        require_one_graph(model, plan.model_name, batch, plan.precision)
