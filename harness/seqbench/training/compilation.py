"""torch.compile in training: the loss as one graph, the time that compiling takes, and refusals with their reason.

What is compiled is a function of the model, not the model: its parameters keep their names, and evaluation, carried
state and checkpoints are those of any other run.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from seqbench.contracts import IGNORED_LABEL, Batch
from seqbench.errors import RequestError, RunFailure, first_line

# Shapes of batches that one run may compile for, static and dynamic together. torch's own limit of 8 is for programs
# that would go on uncompiled; here the next one is an error.
_MOST_GRAPHS = 64


class SummedLoss:
    """Cross-entropy in nats, summed over the labelled tokens of a batch, and the rows' auxiliary losses, summed.

    Logits count in fp32. In place of the auxiliary losses stands None for a model without any.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Scalars with a gradient; the batch is on the model's device."""
        return self.of(batch.input_ids, batch.attention_mask, batch.labels)

    def of(self, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same of the batch's tensors, each (batch, length)."""
        output = self._model(input_ids, attention_mask=attention_mask)
        logits, auxiliary = output.logits.float().flatten(0, 1), getattr(output, "auxiliary_loss", None)
        loss = F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED_LABEL, reduction="sum")
        return loss, None if auxiliary is None else auxiliary.float().sum()


class CompiledLoss(SummedLoss):
    """`SummedLoss` as one graph by torch.compile, forward and backward; nothing of it ever runs uncompiled.

    Attributes:
        seconds: that compiling has taken, while `timed` was entered.
    """

    def __init__(self, model: PreTrainedModel, precision: str, backend: str = "inductor") -> None:
        """`precision` is that of the matrix products, "fp32" or "bf16"; `backend` as torch.compile has it."""
        super().__init__(model)
        self._half = precision == "bf16"
        self.seconds = 0.0
        # Paths of kernels are chosen when a graph is made, and another run may have asked for others.
        torch.compiler.reset()
        self._compiled: Any = torch.compile(super().of, fullgraph=True, backend=backend)

    def of(self, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `SummedLoss.of`. What keeps a model from being compiled is raised as torch has it."""
        with torch.autocast(input_ids.device.type, torch.bfloat16, enabled=self._half):
            losses: tuple[Tensor, Tensor | None] = self._compiled(input_ids, attention_mask, labels)
        return losses

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add to `seconds` what is compiled inside; what cannot be compiled there is a RunFailure("compilation").

        Backward passes are compiled as they are met, so that they belong inside too.
        """
        from torch._dynamo import config
        from torch._dynamo.callback import callback_handler
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

        started = 0.0

        def start(_: Any) -> None:
            nonlocal started
            started = time.perf_counter()

        def end(_: Any) -> None:
            self.seconds += time.perf_counter() - started

        callback_handler.register_start_callback(start)
        callback_handler.register_end_callback(end)
        try:
            with config.patch(recompile_limit=_MOST_GRAPHS, accumulated_recompile_limit=_MOST_GRAPHS):
                yield
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            raise RunFailure(
                "compilation",
                f"torch.compile cannot take a batch as one graph: {reason(error)}; without --compile it would run",
            ) from error
        finally:
            callback_handler.remove_start_callback(start)
            callback_handler.remove_end_callback(end)


def require_one_graph(model: PreTrainedModel, name: str, batch: Batch, precision: str) -> None:
    """Raise RequestError, with the model's `name`, unless a training step of the batch is one graph.

    Traces forward and backward pass without making machine code, which is slow; that such code can be made here at all
    is tried on one operation. `model` and `batch` are on the same device.
    """
    device = batch.input_ids.device
    try:
        torch.compile(_one_operation, fullgraph=True)(torch.ones(8, device=device))
    except RuntimeError as error:
        raise RequestError(
            f"--compile makes machine code for {device.type}, and torch cannot do that here: {reason(error)}; install"
            " what it asks for (a C++ compiler such as g++ for the CPU, Triton for CUDA), or leave --compile out"
        ) from error
    model.train()
    try:
        loss, auxiliary = CompiledLoss(model, precision, backend="aot_eager")(batch)
        (loss if auxiliary is None else loss + auxiliary).backward()
    except Exception as error:
        if isinstance(error, OSError | MemoryError):
            raise
        raise RequestError(
            f"--compile: model {name} cannot be compiled as one graph: {reason(error)}; mend that, or leave --compile"
            " out"
        ) from error
    finally:
        model.zero_grad(set_to_none=True)
        torch.compiler.reset()


def reason(error: BaseException) -> str:
    """The first lines of torch's error, and the last line of the user's code that it names."""
    place = [line.strip() for line in str(error).splitlines() if line.strip().startswith("File ")]
    words = first_line(error) if isinstance(error, Exception) else str(error)
    return f"{words} ({place[-1]})" if place else words


def _one_operation(values: Tensor) -> Tensor:
    return values.sin() + 1
