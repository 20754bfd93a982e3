"""The gradient of one global batch, in as many pieces as memory asks for."""

import gc
from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel

from seqbench.contracts import IGNORED_LABEL, Batch
from seqbench.errors import RunFailure
from seqbench.training.compilation import SummedLoss


class GradientAccumulator:
    """Forward and backward over a batch cut into micro-batches; the result does not depend on the cut but by rounding.

    A micro-batch that does not fit into memory is halved, the batch stays as it is, and the smaller size is kept.

    Attributes:
        size: sequences per forward pass; grows never.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        loss: SummedLoss,
        accelerator: Accelerator,
        size: int,
        on_halving: Callable[[int], None],
    ) -> None:
        """`loss` is the model's; `on_halving` is told the new size whenever memory ran out."""
        self._model, self._loss, self._accelerator, self._on_halving = model, loss, accelerator, on_halving
        self.size = size

    def accumulate(self, batch: Batch, index: int) -> tuple[Tensor, Tensor | None]:
        """Add the gradient of the mean loss over the labelled tokens of the whole batch, and of the mean auxiliary loss
        over its rows where the model has one; returns both.

        Raises RunFailure, naming the batch by its index, when nothing is labelled, and the error of the allocator when
        one sequence does not fit.
        """
        labelled = int((batch.labels != IGNORED_LABEL).sum())
        if labelled == 0:
            raise RunFailure("task-error", f"training batch {index} of the task has no labelled position")
        # What was drawn for dropout in a failed attempt is drawn again.
        generators = torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        while True:
            try:
                return self._attempt(batch, labelled)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or self.size == 1:
                    raise
            # Outside the handler, whose traceback holds the activations.
            self._model.zero_grad(set_to_none=True)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
                torch.cuda.set_rng_state_all(generators[1])
            torch.set_rng_state(generators[0])
            self.size = (min(self.size, batch.input_ids.shape[0]) + 1) // 2
            self._on_halving(self.size)

    def _attempt(self, batch: Batch, labelled: int) -> tuple[Tensor, Tensor | None]:
        device, rows_in_all = self._accelerator.device, batch.input_ids.shape[0]
        total, total_auxiliary = torch.zeros((), device=device), None
        for start in range(0, rows_in_all, self.size):
            loss, auxiliary = self._loss(batch.rows(start, start + self.size).to(device))
            loss = loss / labelled
            total += loss.detach()
            if auxiliary is not None:
                auxiliary = auxiliary / rows_in_all
                total_auxiliary = auxiliary.detach() + (0 if total_auxiliary is None else total_auxiliary)
                loss = loss + auxiliary
            self._accelerator.backward(loss)
        return total, total_auxiliary


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; torch's CPU allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
