"""The one training loop, for every model."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from transformers import PreTrainedModel

from seqbench.contracts import IGNORED_LABEL, Batch, TaskPlugin
from seqbench.errors import RequestError, RunFailure
from seqbench.training.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from seqbench.training.data_order import DataOrderHash
from seqbench.training.interruption import Interruption
from seqbench.training.optimizer import build_optimizers
from seqbench.training.progress import ProgressReporter
from seqbench.training.schedule import learning_rate_at
from seqbench.training.settings import TrainerSettings


class Interrupted(Exception):
    """The user asked to stop; everything is in a checkpoint."""


@dataclass
class TrainingState:
    """What training has done so far; part of a checkpoint.

    Attributes:
        step: optimizer steps done.
        tokens: tokens seen, padding not counted.
        seconds: time spent in training steps alone, evaluations and checkpoints not counted.
        data_order: chained hash of the batches so far.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    data_order: str = ""


@dataclass
class _Interval:
    """Sums since the last line of the log; tensors, so that a GPU is asked for numbers once a line."""

    loss: Tensor
    gradient_norm: Tensor
    steps: int
    tokens: int
    started: float


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
    ) -> None:
        # Accelerate keeps one precision a process; a second run in the same process may want another.
        AcceleratorState._reset_state()
        self._accelerator = Accelerator(
            cpu=device.type == "cpu", mixed_precision="bf16" if precision == "bf16" else "no"
        )
        if self._accelerator.num_processes > 1:
            raise RequestError("bench trains in one process; start it without torchrun or accelerate launch")
        self.model: PreTrainedModel = self._accelerator.prepare(model)
        # Checkpoints hold the state of what Accelerate wraps, not of its wrappers.
        self._bare_model, self._bare_optimizers = model, build_optimizers(model, settings)
        self._optimizers = [self._accelerator.prepare(optimizer) for optimizer in self._bare_optimizers]
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._task, self._settings, self._seed = task, settings, seed
        self._device, self._checkpoints, self._log = device, checkpoints, log
        self.state = TrainingState()
        self._resume()

    def train(self, progress: ProgressReporter, evaluate: Callable[[int], None]) -> TrainingState:
        """Train to the last step; `evaluate(step)` is called at the evaluation interval.

        Raises RunFailure("divergence") when the loss or the gradient is no longer finite, and Interrupted after a
        checkpoint when the user asked to stop.
        """
        settings = self._settings
        self.model.train()
        interval = self._new_interval()
        with Interruption() as interruption:
            while self.state.step < settings.steps:
                # After the checkpoint of the same step, so that a run that goes on from there evaluates once more and
                # finds the random generators as they were.
                if self.state.step and self._due(settings.evaluation_interval):
                    evaluate(self.state.step)
                    interval = self._new_interval()
                self._step(interval)
                last = self.state.step == settings.steps
                # Asked once: a signal that comes later in this round is answered in the next one.
                stop = interruption.requested and not last
                save = stop or (self._due(settings.checkpoint_interval) and not last)
                if save or last or self._due(settings.log_interval) or self._due(settings.evaluation_interval):
                    interval = self._report(interval, progress)
                if save:
                    self._save()
                    interval = self._new_interval()
                if stop:
                    raise Interrupted
        return self.state

    def save_final(self) -> None:
        """Checkpoint after the last step, so that a crash in the final evaluation costs no training."""
        self._save()

    def _step(self, interval: _Interval) -> None:
        settings, state = self._settings, self.state
        batch = self._task.training_batch(self._seed, state.step, settings.batch_size)
        order = DataOrderHash(state.data_order)
        order.add(batch)
        rate = learning_rate_at(state.step, settings)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        interval.loss += self._accumulate_gradients(batch)
        interval.gradient_norm += self._clip()
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()
        tokens = batch.tokens
        interval.steps += 1
        interval.tokens += tokens
        state.step += 1
        state.tokens += tokens
        state.data_order = order.digest

    def _accumulate_gradients(self, batch: Batch) -> Tensor:
        """Gradient of the mean loss over the labelled tokens of the whole batch, however it is cut; returns that."""
        size = self._settings.micro_batch_size or self._settings.batch_size
        labelled = int((batch.labels != IGNORED_LABEL).sum())
        if labelled == 0:
            raise RunFailure("task-error", f"training batch {self.state.step} of the task has no labelled position")
        total = torch.zeros((), device=self._device)
        for start in range(0, batch.input_ids.shape[0], size):
            rows = batch.rows(start, start + size).to(self._device)
            output = self.model(rows.input_ids, attention_mask=rows.attention_mask)
            loss = F.cross_entropy(
                output.logits.float().flatten(0, 1),
                rows.labels.flatten(),
                ignore_index=IGNORED_LABEL,
                reduction="sum",
            )
            loss = loss / labelled
            self._accelerator.backward(loss)
            total += loss.detach()
        return total

    def _clip(self) -> Tensor:
        limit = self._settings.gradient_clip_norm
        norm = self._accelerator.clip_grad_norm_(self._parameters, float("inf") if limit is None else limit)
        return norm.detach()

    def _due(self, interval: int) -> bool:
        return interval > 0 and self.state.step % interval == 0

    def _report(self, interval: _Interval, progress: ProgressReporter) -> _Interval:
        if interval.steps == 0:
            return interval
        loss = float(interval.loss) / interval.steps
        gradient_norm = float(interval.gradient_norm) / interval.steps
        seconds = time.perf_counter() - interval.started
        self.state.seconds += seconds
        step = self.state.step
        record = {
            "kind": "train",
            "step": step,
            "loss": loss,
            "gradient_norm": gradient_norm,
            "learning_rate": learning_rate_at(step - 1, self._settings),
            "tokens": self.state.tokens,
            "seconds": self.state.seconds,
            "data_order_sha256": self.state.data_order,
        }
        self._log(record)
        if not (torch.isfinite(interval.loss) and torch.isfinite(interval.gradient_norm)):
            what = "loss" if not torch.isfinite(interval.loss) else "gradient norm"
            first = step - interval.steps + 1
            raise RunFailure(
                "divergence",
                f"the {what} is no longer finite (steps {first} to {step}); a lower learning_rate or a smaller"
                " gradient_clip_norm may help",
            )
        progress.advance(step, loss, interval.tokens / max(seconds, 1e-9))
        return self._new_interval()

    def _new_interval(self) -> _Interval:
        zero = torch.zeros((), device=self._device)
        return _Interval(zero, zero.clone(), 0, 0, time.perf_counter())

    def _save(self) -> None:
        save_checkpoint(self._checkpoints, self.state.step, self._bare_model, self._bare_optimizers, asdict(self.state))

    def _resume(self) -> None:
        existing = list_checkpoints(self._checkpoints)
        if existing:
            state = load_checkpoint(existing[-1], self._bare_model, self._bare_optimizers)
            self.state = TrainingState(**state)
