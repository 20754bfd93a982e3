"""The one training loop, for every model."""

import functools
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor
from transformers import PreTrainedModel

from seqbench.contracts import TaskPlugin
from seqbench.errors import RequestError, RunFailure
from seqbench.surroundings.stopping import Stopped, answer_noted, answered, noted
from seqbench.surroundings.variables import hidden_variables
from seqbench.training.budget import TrainingBudget
from seqbench.training.checkpoint import random_states, restore_newest, restore_random_states, save_checkpoint
from seqbench.training.compilation import CompiledLoss, SummedLoss
from seqbench.training.data_order import DataOrderHash
from seqbench.training.gradient_norms import group_by_module, module_gradient_norms
from seqbench.training.gradients import GradientAccumulator
from seqbench.training.matrices import Declared
from seqbench.training.optimizer import build_optimizers
from seqbench.training.progress import ProgressReporter
from seqbench.training.schedule import learning_rate_at
from seqbench.training.settings import TrainerSettings

# Steps at the beginning of a process in which memory is taken, kernels are chosen and code is compiled; not timed.
UNTIMED_STEPS = 3


@dataclass
class TrainingState:
    """What training has done so far; part of a checkpoint.

    Attributes:
        step: optimizer steps done.
        tokens: tokens seen, padding not counted.
        flops: matrix-multiplication FLOPs of forward and backward passes, by the plugin's declaration.
        seconds: time spent in training steps alone: evaluations, checkpoints and the first steps of each process, in
            which things warm up and are compiled, are not counted.
        data_order: chained hash of the batches so far.
        decay_start: share of the budget that was spent when the warm-up of the learning rate ended.
        micro_batch_size: sequences per forward pass; less than asked for once memory ran out. 0 before the first step.
        compile_seconds: that torch.compile took in all processes; no part of `seconds`.
    """

    step: int = 0
    tokens: int = 0
    flops: int = 0
    seconds: float = 0.0
    data_order: str = ""
    decay_start: float = 0.0
    micro_batch_size: int = 0
    compile_seconds: float = 0.0


@dataclass
class _Interval:
    """What happened since the last line of the log; tensors, so that a GPU is asked for numbers once a line.

    Attributes:
        losses, gradient_norms: one scalar a step.
        auxiliary_losses: one scalar a step of a model that has such a loss, else none.
        module_norms: (modules,) of the last step for which they were due, or None.
        rate: learning rate of the last step.
        untimed_seconds, untimed_tokens: what the steps took and saw that are not timed.
    """

    losses: list[Tensor] = field(default_factory=list)
    gradient_norms: list[Tensor] = field(default_factory=list)
    auxiliary_losses: list[Tensor] = field(default_factory=list)
    module_norms: Tensor | None = None
    rate: float = 0.0
    tokens: int = 0
    started: float = field(default_factory=time.perf_counter)
    untimed_seconds: float = 0.0
    untimed_tokens: int = 0

    def seconds(self) -> float:
        """Timed seconds so far."""
        return time.perf_counter() - self.started - self.untimed_seconds


class Trainer:
    """Trains one model on one task's stream.

    Args:
        model: freshly built; moved to the device and, for bf16, run under autocast by Accelerate.
        task: source of batches.
        settings: how to train.
        seed: seed of the training stream.
        device, precision: "fp32" or "bf16".
        checkpoints: folder of the checkpoints; an existing one is continued.
        log: called with one plain record per line of the log.
        budget: what ends training; None for the settings' steps.
        sequence_flops: training FLOPs of one sequence of a number of tokens; None leaves them uncounted.
        before_saving: called before each checkpoint, which must not get ahead of what was logged.
        matrix_parts: what the plugin says of a parameter; see `seqbench.training.matrices`.
        compiled: whether forward and backward pass go through torch.compile.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        task: TaskPlugin[Any],
        settings: TrainerSettings,
        seed: int,
        device: torch.device,
        precision: str,
        checkpoints: Path,
        log: Callable[[dict[str, Any]], None],
        budget: TrainingBudget | None = None,
        sequence_flops: Callable[[int], int] | None = None,
        before_saving: Callable[[], None] = lambda: None,
        matrix_parts: Declared = lambda name: None,
        compiled: bool = False,
    ) -> None:
        # A compiled loss has its precision in the graph.
        self._accelerator = _accelerator(device, "fp32" if compiled else precision)
        if self._accelerator.num_processes > 1:
            raise RequestError("bench trains in one process; start it without torchrun or accelerate launch")
        self.model: PreTrainedModel = self._accelerator.prepare(model)
        # Checkpoints hold the state of what Accelerate wraps, not of its wrappers.
        self._bare_model, self._bare_optimizers = model, build_optimizers(model, settings, matrix_parts)
        self._optimizers = [self._accelerator.prepare(optimizer) for optimizer in self._bare_optimizers]
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._modules = group_by_module(model)
        self._task, self._settings, self._seed = task, settings, seed
        self._device, self._checkpoints, self._log = device, checkpoints, log
        self._before_saving = before_saving
        self._budget = budget or TrainingBudget("steps", settings.steps)
        self._flops = functools.cache(sequence_flops or (lambda length: 0))
        self._untimed_steps = UNTIMED_STEPS
        self.state = TrainingState()
        self._resume()
        size = self.state.micro_batch_size or settings.micro_batch_size or settings.batch_size
        self._compiled = CompiledLoss(self.model, precision) if compiled else None
        loss = self._compiled or SummedLoss(self.model)
        self._gradients = GradientAccumulator(self.model, loss, self._accelerator, size, self._tell_halving)

    @property
    def finished(self) -> bool:
        """Whether the budget is spent."""
        return self._budget.progress(self.state) >= 1

    def train(self, progress: ProgressReporter, evaluate: Callable[[int], None]) -> TrainingState:
        """Train until the budget is spent; `evaluate(step)` is called at the evaluation interval.

        Raises RunFailure("divergence") when the loss or the gradient is no longer finite (looked at once a line of the
        log), RunFailure("compilation") when a batch cannot be compiled as it is to be, and Stopped after a checkpoint
        when a signal asks for it.
        """
        settings = self._settings
        self.model.train()
        interval = _Interval()
        with noted() as is_to_stop, self._compiled.timed() if self._compiled else nullcontext():
            while not self.finished:
                # After the checkpoint of the same step, so that a run that goes on from there evaluates once more and
                # finds the random generators as they were.
                if self.state.step and self._due(settings.evaluation_interval):
                    self._evaluate(evaluate)
                    interval = _Interval()
                self._step(interval)
                last = self._is_spent(interval)
                # Asked once: a signal that comes later in this round is answered in the next one.
                stop = is_to_stop() and not last
                save = stop or (self._due(settings.checkpoint_interval) and not last)
                if save or last or self._due(settings.log_interval) or self._due(settings.evaluation_interval):
                    interval = self._report(interval, progress)
                if save:
                    self._save()
                    interval = _Interval()
                if stop:
                    answer_noted()
        return self.state

    def save_final(self) -> None:
        """Checkpoint after the last step, so that a crash in the final evaluation costs no training."""
        self._save()

    def _evaluate(self, evaluate: Callable[[int], None]) -> None:
        """An evaluation may take long: a signal ends it, and the step before it is saved as it was."""
        before = random_states()
        try:
            with answered():
                evaluate(self.state.step)
        except Stopped:
            restore_random_states(before)
            self._save()
            raise

    def _step(self, interval: _Interval) -> None:
        settings, state = self._settings, self.state
        compiled_before = self._seconds_compiling
        batch = self._task.training_batch(self._seed, state.step, settings.batch_size)
        order = DataOrderHash(state.data_order)
        order.add(batch)
        rate = self._learning_rate(interval)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        loss, auxiliary = self._gradients.accumulate(batch, state.step)
        interval.losses.append(loss)
        if auxiliary is not None:
            interval.auxiliary_losses.append(auxiliary)
        if (state.step + 1) % settings.log_interval == 0 or state.step + 1 == settings.steps:
            interval.module_norms = module_gradient_norms(self._modules, self._device)
        interval.gradient_norms.append(self._clip())
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()
        interval.rate = rate
        interval.tokens += batch.tokens
        state.step += 1
        state.tokens += batch.tokens
        state.flops += sum(map(self._flops, batch.lengths))
        state.data_order = order.digest
        state.micro_batch_size = self._gradients.size
        compiling = self._seconds_compiling - compiled_before
        state.compile_seconds += compiling
        interval.untimed_seconds += compiling
        if self._untimed_steps:
            self._untimed_steps -= 1
            interval.untimed_seconds = time.perf_counter() - interval.started
            interval.untimed_tokens = interval.tokens

    @property
    def _seconds_compiling(self) -> float:
        return self._compiled.seconds if self._compiled else 0.0

    def _clip(self) -> Tensor:
        limit = self._settings.gradient_clip_norm
        norm = self._accelerator.clip_grad_norm_(self._parameters, float("inf") if limit is None else limit)
        return norm.detach()

    def _learning_rate(self, interval: _Interval) -> float:
        """Of the next step; a budget of steps knows its last one, the others how much of them is spent."""
        state, settings = self.state, self._settings
        if self._budget.kind == "steps":
            return learning_rate_at(state.step, settings)
        spent = self._budget.progress(self._now(interval))
        if state.step <= settings.warmup_steps:
            state.decay_start = spent
        return learning_rate_at(state.step, settings, (spent - state.decay_start) / max(1e-9, 1 - state.decay_start))

    def _now(self, interval: _Interval) -> TrainingState:
        """The state with the seconds up to this moment."""
        return replace(self.state, seconds=self.state.seconds + interval.seconds())

    def _is_spent(self, interval: _Interval) -> bool:
        return self._budget.progress(self._now(interval)) >= 1

    def _tell_halving(self, size: int) -> None:
        self._log({"kind": "micro-batch", "step": self.state.step, "micro_batch_size": size})

    def _due(self, interval: int) -> bool:
        return interval > 0 and self.state.step % interval == 0

    def _report(self, interval: _Interval, progress: ProgressReporter) -> _Interval:
        """Log the interval and start the next one.

        The line has the loss and the gradient norm (before clipping) of each of its steps and their means; and at each
        multiple of the log interval and at the last step that step's gradient norm by module.
        """
        steps = len(interval.losses)
        if steps == 0:
            return interval
        losses, gradient_norms, auxiliary_losses, module_norms = _numbers(interval)
        loss = sum(losses) / steps
        seconds = interval.seconds()
        self.state.seconds += seconds
        step, share = self.state.step, min(1.0, self._budget.progress(self.state))
        record = {
            "kind": "train",
            "step": step,
            "loss": loss,
            "gradient_norm": sum(gradient_norms) / steps,
            "learning_rate": interval.rate,
            "progress": share,
            "tokens": self.state.tokens,
            "flops": self.state.flops,
            "seconds": self.state.seconds,
            "data_order_sha256": self.state.data_order,
            "losses": losses,
            "gradient_norms": gradient_norms,
        }
        if auxiliary_losses:
            record["auxiliary_losses"] = auxiliary_losses
        if module_norms:
            record["module_gradient_norms"] = dict(zip(self._modules, module_norms, strict=True))
        self._log(record)
        _require_finite(step - steps + 1, losses, gradient_norms)
        progress.advance(step, share, loss, (interval.tokens - interval.untimed_tokens) / max(seconds, 1e-9))
        return _Interval()

    def _save(self) -> None:
        self._before_saving()
        save_checkpoint(self._checkpoints, self.state.step, self._bare_model, self._bare_optimizers, asdict(self.state))

    def _resume(self) -> None:
        state = restore_newest(self._checkpoints, self._bare_model, self._bare_optimizers)
        if state is not None:
            self.state = TrainingState(**state)


def _accelerator(device: torch.device, precision: str) -> Accelerator:
    """Accelerate as it is told here: by no variable, and by nobody who used it in this process before."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    with hidden_variables():
        return Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if precision == "bf16" else "no")


def _numbers(interval: _Interval) -> tuple[list[float], ...]:
    """Losses, gradient norms, auxiliary losses and module norms on the host, asked for at once."""
    scalars = (interval.losses, interval.gradient_norms, interval.auxiliary_losses)
    parts = [torch.stack(values) if values else torch.empty(0) for values in scalars]
    parts.append(torch.empty(0) if interval.module_norms is None else interval.module_norms)
    device, sizes = parts[0].device, [len(part) for part in parts]
    return tuple(part.tolist() for part in torch.cat([part.to(device) for part in parts]).cpu().split(sizes))


def _require_finite(first: int, losses: list[float], gradient_norms: list[float]) -> None:
    """Raise RunFailure for the first step (the lists start at step `first`) that went out of bounds."""
    for step, (loss, gradient_norm) in enumerate(zip(losses, gradient_norms, strict=True), start=first):
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            what = "gradient norm" if math.isfinite(loss) else "loss"
            raise RunFailure(
                "divergence",
                f"the {what} is no longer finite at step {step}; a lower learning_rate or a smaller gradient_clip_norm"
                " may help",
            )
