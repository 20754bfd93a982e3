"""Everything that comes after training, tried on the smallest instance before it."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedModel
from transformers.utils import logging

from seqbench.accounting.counting import parameter_bytes
from seqbench.contracts import Batch
from seqbench.errors import RequestError, RunFailure
from seqbench.evaluating.result import facts, header, outcome
from seqbench.planning.plan import RunPlan
from seqbench.plugins.kernels import requested_paths
from seqbench.rehearsal.evaluation import require_usable
from seqbench.rehearsal.predictor import RehearsalPredictor
from seqbench.report.model_card import model_card
from seqbench.store.files import temporary_folder, write_json_lines, write_text
from seqbench.testing.clause import own_draws
from seqbench.testing.tensors import same_bits
from seqbench.training.trainer import TrainingState

# Copies of the weights in a checkpoint: they, and the optimizer's two moments.
_COPIES_IN_CHECKPOINT = 3

# Builds a model with the plan's settings, with the weights in a folder or, for None, with those that training begins
# with.
Build = Callable[[Path | None], PreTrainedModel]


def rehearse(plan: RunPlan, build: Build, place: Path) -> list[Batch]:
    """Evaluate, save, load and describe an untrained model; returns batches of the test set.

    Nothing of it stays: neither files nor draws of random numbers nor changes to the model that will be trained. What
    the task, the plugin or the disk raises is raised here; what they return is looked at.

    Args:
        plan: of the run.
        build: makes the model; see `Build`.
        place: the run's folder, which exists.

    Raises:
        RunFailure: "evaluation", or "saving" for a model that does not come back from its files.
    """
    with own_draws(), requested_paths(plan.kernels):
        model = build(None)
        predictor = RehearsalPredictor.of(plan.model, plan.tested_config, model, plan.device, plan.precision)
        predictor.longest = plan.model.longest_sequence(plan.tested_config)
        task = plan.task.rehearsal()
        validates = plan.trainer.evaluation_interval > 0 and plan.task.trains
        for split in dict.fromkeys([*["validation"] * validates, plan.split]):
            evaluation = task.evaluate(predictor, split)
            require_usable(plan.task, evaluation, split)
        for length in dict.fromkeys(_training_lengths(plan)):
            plan.model.flops(plan.model_config, length)
        folder = temporary_folder(place / "rehearsal")
        try:
            folder.mkdir()
            write_json_lines(folder / "items.jsonl", evaluation.items)
            result = {**header(plan), **facts(plan, model), **outcome(plan, TrainingState(), evaluation)}
            write_text(folder / "README.md", model_card(result, model))
            _require_saving(model, build, folder / "model")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    _require_room(place, _COPIES_IN_CHECKPOINT * parameter_bytes(model))
    return predictor.batches


def test_batches(plan: RunPlan, model: PreTrainedModel) -> list[Batch]:
    """Batches of the test set, from an evaluation in which the model answers only once."""
    with own_draws():
        predictor = RehearsalPredictor.of(plan.model, plan.tested_config, model, plan.device, plan.precision)
        predictor.seconds = 0.0
        plan.task.rehearsal().evaluate(predictor, plan.split)
    return predictor.batches


def _training_lengths(plan: RunPlan) -> Sequence[int]:
    if not plan.task.trains or plan.budget.target <= 0:
        return ()
    return plan.task.training_batch(plan.seed, 0, plan.trainer.batch_size).lengths


def _require_saving(model: PreTrainedModel, build: Build, folder: Path) -> None:
    """Raise RunFailure("saving") unless the model comes back from its files as it was."""
    with _without_bars():
        model.save_pretrained(folder)
    try:
        with _without_bars():
            loaded = build(folder)
    except RequestError as error:
        told = str(error).splitlines()[0].replace(f" in {folder}", "")
        raise RunFailure("saving", f"what the model saves cannot be loaded again: {told}") from error
    before, after = model.state_dict(), loaded.state_dict()
    lost = [
        name
        for name, tensor in before.items()
        if name not in after or not same_bits(tensor.cpu(), after[name].cpu().to(tensor.dtype))
    ]
    if lost:
        raise RunFailure("saving", f"{lost[0]} has other values when the saved model is loaded again")


@contextmanager
def _without_bars() -> Iterator[None]:
    """Of saving and loading that nobody asked for no progress is shown."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _require_room(place: Path, needed: int) -> None:
    """Raise OSError(ENOSPC) when the disk has no room for one checkpoint."""
    if shutil.disk_usage(place).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))
