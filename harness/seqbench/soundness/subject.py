"""The model of a run under examination, and how much may be spent on it."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from seqbench.accounting.counting import parameter_bytes
from seqbench.contracts import Batch
from seqbench.planning.plan import RunPlan
from seqbench.testing.model.subject import LENGTH, ModelSubject
from seqbench.testing.tensors import random_tokens

# Floating-point operations of each of two parts, the short sequences and the long ones: seconds on a core, or a GPU.
_FLOPS = {"cpu": 2e11, "cuda": 2e13}
# Tokens that the short sequences take together, over their length.
_PASSES = 130
_SHORTEST = 9
# Passes over a long sequence: two modes, the past before and after three changes of the future, and its beginnings.
_LONG_PASSES = 24
_LONGEST = 4096
# Above this a model is looked at in fp32 alone: copies in fp64 would take more memory than its training.
_BYTES_IN_FP64 = 2**28


class RunSubject(ModelSubject):
    """The plugin with the settings of a run, on the run's device, with the task's tokens.

    A large model is tried on shorter sequences, so that the examination takes seconds and less memory than training.

    Args:
        plan: of the run.
        config: of the model, the plan's one that is trained or the one that is tested.
    """

    def __init__(self, plan: RunPlan, config: Any) -> None:
        super().__init__(plan.model, preset="")
        self._plan, self._config = plan, config
        self.vocabulary = plan.task.vocab_size
        self.length = self._affordable_length()

    @property
    def config(self) -> Any:
        """The run's settings."""
        return self._config

    def fresh(self, seed: int = 0) -> PreTrainedModel:
        """A new model on the run's device."""
        model = super().fresh(seed)
        nn.Module.to(model, self._plan.device)
        return model

    @cached_property
    def long_row(self) -> Tensor | None:
        """Random tokens (1, length) of the longest training sequence, as far as it can be afforded.

        None where that is no longer than the sequences that are tried anyway.
        """
        length = self.affordable(self._plan.task.longest_sequence)
        return None if length <= self.length else random_tokens(1, length, self.vocabulary, seed=length)

    @cached_property
    def batch(self) -> Batch | None:
        """The first two rows of the run's first batch, cut where they are too long; None where nothing is trained."""
        plan = self._plan
        if not plan.task.trains or plan.budget.target <= 0:
            return None
        return self.cut(plan.task.training_batch(plan.seed, 0, plan.trainer.batch_size))

    def cut(self, batch: Batch) -> Batch:
        """The first two rows of a batch, as far as they can be afforded."""
        stop = self.affordable(batch.input_ids.shape[1])
        mask = None if batch.attention_mask is None else batch.attention_mask[:2, :stop]
        return Batch(batch.input_ids[:2, :stop], batch.labels[:2, :stop], mask)

    def affordable(self, length: int) -> int:
        """The most tokens of a sequence of that length that can be tried: all, a half, a quarter, ..."""
        tried = min(length, _LONGEST)
        while tried > self.length and _LONG_PASSES * self._flops(tried) > self._budget:
            tried //= 2
        return tried

    @property
    def _runs_in_fp64(self) -> bool:
        return parameter_bytes(self._lively) <= _BYTES_IN_FP64 and super()._runs_in_fp64

    @property
    def _budget(self) -> float:
        return _FLOPS[self._plan.device.type]

    def _flops(self, length: int) -> int:
        return self.plugin.flops(self.config, length).forward_total

    def _affordable_length(self) -> int:
        length = LENGTH
        while length > _SHORTEST and _PASSES * self._flops(length) > self._budget:
            length //= 2
        return max(length, _SHORTEST)


def draws_random_numbers(model: PreTrainedModel, tokens: Tensor) -> bool:
    """Whether the forward pass in training mode draws random numbers, as dropout does."""
    was_training = model.training
    devices = [model.device.index or 0] if model.device.type == "cuda" else []
    before = [torch.random.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]
    with torch.no_grad():
        model.train()(tokens.to(model.device))
    after = [torch.random.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]
    model.train(was_training)
    return any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
