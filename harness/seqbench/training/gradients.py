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

    def accumulate(self, batch: Batch, index: int) -> Tensor:
        """Add the gradient of the mean loss over the labelled tokens of the whole batch; returns that loss.

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

    def _attempt(self, batch: Batch, labelled: int) -> Tensor:
        device = self._accelerator.device
        total = torch.zeros((), device=device)
        for start in range(0, batch.input_ids.shape[0], self.size):
            rows = batch.rows(start, start + self.size).to(device)
            loss = self._loss(rows) / labelled
            self._accelerator.backward(loss)
            total += loss.detach()
        return total


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; torch's CPU allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
