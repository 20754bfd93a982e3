"""What a plugin tells of its model's inside while it trains, kept from changing the training."""

import random
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from seqbench.contracts import Batch, Measurement, ModelPlugin, TaskPlugin
from seqbench.nn import evaluation_mode
from seqbench.store.files import json_line
from seqbench.surroundings.circumstances import circumstance_of
from seqbench.training.settings import TrainerSettings

# The batch is the longest of this many, so that a task which draws a length for each batch shows far distances.
_CANDIDATES = 16
# Enough sequences for a map of how often parts are used, few enough to cost less than a training step.
_ROWS = 16


class Diagnostics:
    """Calls `ModelPlugin.diagnose` on one batch of training data, the same for the whole run.

    The batch is the first rows of the longest among the first 16 batches of the run's training stream: a function of
    task and seed, so that the lines of a log, and those of several models, speak of the same data.

    Args:
        plugin: whose `diagnose` is called.
        model: in training, on the run's device.
        task, settings, seed: of the run; they give the batch.
        device, precision: as in training.
        log: called with one plain record per call that gave something.
    """

    def __init__(
        self,
        plugin: ModelPlugin[Any],
        model: PreTrainedModel,
        task: TaskPlugin[Any],
        settings: TrainerSettings,
        seed: int,
        device: torch.device,
        precision: str,
        log: Callable[[dict[str, Any]], None],
    ) -> None:
        self._plugin, self._model = plugin, model
        self._task, self._settings, self._seed = task, settings, seed
        self._device, self._precision, self._log = device, precision, log

    def take(self, step: int) -> list[dict[str, Any]]:
        """Log what the plugin tells after `step`, as a line of kind "diagnostics", and return the measurements.

        An error of the plugin becomes a line of kind "diagnostics-error" and costs no training; what the system refuses
        is raised, since the measurements would be lacking for no reason of the run's. Random generators,
        gradients and training flags are left as they were, whatever the plugin does.
        """
        if type(self._plugin).diagnose is ModelPlugin.diagnose:
            return []
        batch = self._batch
        try:
            with _undisturbed(self._model, self._device), self._autocast():
                measurements = _plain(self._plugin.diagnose(self._model, batch))
        except Exception as error:
            if circumstance_of(error) is not None:
                raise
            self._log(
                {
                    "kind": "diagnostics-error",
                    "step": step,
                    "message": " ".join(f"{type(error).__name__}: {error}".split()),
                    "traceback": "".join(traceback.format_exception(error)),
                }
            )
            return []
        if measurements:
            self._log({"kind": "diagnostics", "step": step, "measurements": measurements})
        return measurements

    @cached_property
    def _batch(self) -> Batch:
        settings = self._settings
        candidates = (self._task.training_batch(self._seed, index, settings.batch_size) for index in range(_CANDIDATES))
        longest = max(candidates, key=lambda batch: batch.input_ids.shape[1])
        # No more than training has room for.
        rows = min(_ROWS, settings.micro_batch_size or settings.batch_size)
        return longest.rows(0, rows).to(self._device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bf16")


def diagnostics_notes(log: Sequence[dict[str, Any]]) -> list[str]:
    """What to print under a result whose log tells of errors in the diagnostics."""
    errors = [row for row in log if row["kind"] == "diagnostics-error"]
    if not errors:
        return []
    last = errors[-1]
    times = "once" if len(errors) == 1 else f"{len(errors)} times"
    return [
        f"the model's own diagnostics failed {times}, last after step {last['step']} ({last['message']});"
        " tracebacks are in metrics.jsonl; training is not affected"
    ]


def _plain(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Measurements as they are stored. Raises TypeError for what is none, or holds something else than plain data."""
    plain = [asdict(measurement) for measurement in measurements]
    for row in plain:
        values = [row["value"], *row["coordinates"].values()]
        words = [row["metric"], row["unit"], *row["coordinates"]]
        if not isinstance(values[0], int | float) or not all(isinstance(word, str) for word in words):
            raise TypeError(f"metric {row['metric']!r} needs a name, a unit and a plain number, not {values[0]!r}")
        if not all(isinstance(value, int | float | str | None) for value in values):
            raise TypeError(f"the coordinates of metric {row['metric']!r} are not plain numbers and words")
    json_line(plain)
    return plain


@contextmanager
def _undisturbed(model: PreTrainedModel, device: torch.device) -> Iterator[None]:
    """Evaluation mode without gradients left over; afterwards everything that training depends on is as before."""
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    others = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []), evaluation_mode(model):
        try:
            # What is added to a gradient goes to a new tensor.
            model.zero_grad(set_to_none=True)
            yield
        finally:
            for parameter, gradient in gradients:
                parameter.grad = gradient
            random.setstate(others[0])
            np.random.set_state(others[1])
