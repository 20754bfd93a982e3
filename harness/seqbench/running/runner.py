"""One run from plan to result."""

import dataclasses
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from seqbench.contracts import Batch, Evaluation
from seqbench.environment import describe_environment, fixed_surroundings
from seqbench.errors import Circumstance, RequestError, RunFailure
from seqbench.evaluating.measured import values_by_place
from seqbench.evaluating.result import facts, failed, header, outcome, with_kernel_paths
from seqbench.planning.fresh_model import build_model, prepare_model
from seqbench.planning.initial_weights import load_weights
from seqbench.planning.plan import RunPlan
from seqbench.planning.task_data import locations
from seqbench.plugins.kernels import forget_taken_paths, requested_paths, taken_paths
from seqbench.rehearsal.compilation import require_compilable
from seqbench.rehearsal.rehearse import rehearse, test_batches
from seqbench.report.model_card import model_card
from seqbench.running.edited_source import edited_sources, sources_of
from seqbench.running.measuring import evaluate_trained, load_trained, predictor_of, records_of
from seqbench.running.rounding import rounding_differences
from seqbench.running.standing import TRAINING_FAILED, standing_result
from seqbench.soundness.gate import Examination
from seqbench.store.attempts import forget_attempts, record_attempt
from seqbench.store.elsewhere import remember
from seqbench.store.files import finite, write_folder_atomically, write_json_lines, write_text
from seqbench.store.repair import repair
from seqbench.store.run_folder import SCHEMA, RunFolder
from seqbench.surroundings.circumstances import circumstance_of
from seqbench.surroundings.memory_pressure import others_hold_it
from seqbench.surroundings.stopping import noted
from seqbench.training.checkpoint import keep_newest
from seqbench.training.diagnostics import Diagnostics, diagnostics_notes
from seqbench.training.gradients import is_out_of_memory
from seqbench.training.progress import TrainingProgress, duration
from seqbench.training.trainer import Trainer

# What is none of the run's failures.
_NOT_OF_THE_RUN = (RequestError, Circumstance)


@fixed_surroundings()
def execute(plan: RunPlan, folder: RunFolder, runs: Path, retry_failed: bool = False) -> dict[str, Any]:
    """Train, test and store, or return the result that is already there.

    An ablation at evaluation alone tests the model of the run that trained it whole; that run is looked for in the
    store `runs`, and made when it is missing.

    Failures of the run itself (divergence, out of memory, a plugin that raises) are stored and returned as a result
    with status "failed"; with `retry_failed` such a stored result is forgotten and the run goes on from its last
    checkpoint. Raises RequestError when the run cannot be started as asked, and Circumstance, which is counted
    in the folder, when what surrounds the run stopped it: the next call goes on.
    """
    if not folder.takes_writing() and (finished := _read_only(plan, folder, runs, retry_failed)) is not None:
        return finished
    with folder.locked(), _counted(folder):
        repair(folder, describe(plan))
        finished = standing_result(plan, folder, runs, retry_failed)
        if finished is not None:
            # The last one may have been stopped between the result and this.
            forget_attempts(folder)
            remember(runs, folder.path)
            return finished
        started = time.time()
        try:
            prepared = _prepare(plan, folder, runs, retry_failed)
        except _NOT_OF_THE_RUN:
            raise
        except Exception as error:
            _enter(plan, folder)
            remember(runs, folder.path)
            result = failed(plan, {}, *_explain(error, plan, folder))
        else:
            differences = _enter(plan, folder)
            remember(runs, folder.path)
            folder.remove_result()
            result = _attempt(plan, prepared, folder, differences)
        result["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        result["wall_seconds"] = time.time() - started
        result["sources"] = sources_of(plan)
        stored = folder.write_result(result)
        forget_attempts(folder)
        if result["status"] == "complete":
            records_of(plan, folder).remove()
        # So that the same command prints the same again.
        return finite(stored)


def _read_only(plan: RunPlan, folder: RunFolder, runs: Path, retry_failed: bool) -> dict[str, Any] | None:
    """The standing result where nothing can be mended. Raises DamagedFile when it rests on something damaged."""
    damage = next(folder.damages(), None)
    if damage is not None:
        raise damage
    return standing_result(plan, folder, runs, retry_failed)


@contextmanager
def _counted(folder: RunFolder) -> Iterator[None]:
    """Errors that tell of a circumstance become one, and are counted in the folder."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        circumstance = circumstance_of(error)
        if circumstance is None:
            raise
        record_attempt(folder, circumstance)
        raise circumstance from error


def describe(plan: RunPlan) -> dict[str, Any]:
    """Content of run.json."""
    places = locations(plan.task)
    found = {"schema": SCHEMA, "hash": plan.run_hash, "identity": plan.identity, "sources": sources_of(plan)}
    return {**found, "locations": places} if places else found


def record_failure(plan: RunPlan, folder: RunFolder, reason: str, message: str, **more: Any) -> dict[str, Any]:
    """A failed result for a run whose process ended without leaving one; stored, unless the folder is not ours.

    `more` is known of the failure besides.
    """
    result = {**failed(plan, {}, reason, message), "sources": sources_of(plan)}
    result["failure"] |= more
    # A disk that is full takes no failures either.
    with suppress(RequestError, Circumstance, OSError), folder.locked():
        finished = folder.finished_result(plan.run_hash)
        if finished is not None and finished["status"] == "complete":
            # Of another process, which was faster.
            return finished
        # The environment stays that of the process that was at work: it decides whether the run goes on to the bit.
        if folder.read_run() is None:
            _enter(plan, folder)
        stored = folder.write_result(result)
        forget_attempts(folder)
        return finite(stored)
    return result


def _enter(plan: RunPlan, folder: RunFolder) -> list[str]:
    """Open the folder; what decides rounding and was otherwise when the run was at work there before."""
    sources = sources_of(plan)
    before, now = folder.read_environment(), {**describe_environment(plan.device, plan.kernels), "sources": sources}
    folder.open(describe(plan), now)
    names = {"model": plan.model_name, "task": plan.task_name}
    return [*rounding_differences(before, now), *edited_sources(before, sources, names)] if before else []


@dataclass(frozen=True)
class _Prepared:
    """A model to train, or one that another run has trained.

    Attributes:
        training: what is known of that run's training; None for a model to train.
        examination: of the model, which passed it or was allowed to fail.
        batches: of the test set, from the rehearsal; empty where there was none.
    """

    model: PreTrainedModel
    training: dict[str, Any] | None
    examination: Examination
    batches: Sequence[Batch] = ()


def _prepare(plan: RunPlan, folder: RunFolder, runs: Path, retry_failed: bool) -> _Prepared:
    """Whatever can be refused is refused here, before anything is trained or written."""
    trained = plan.trained
    store = runs if folder.path.resolve().is_relative_to(runs.resolve()) else None
    if trained is plan:
        model = prepare_model(plan)[0]
        examination = examine(plan, store)
        require_compilable(plan)
        return _Prepared(model, None, examination, rehearse_run(plan, folder.path))
    source = RunFolder(runs / trained.folder_name)
    if standing_result(trained, source, runs, retry_failed) is None:
        # Before the hours that training may take.
        examine(plan, store)
    result = execute(trained, source, runs, retry_failed)
    if result["status"] != "complete":
        raise RunFailure(TRAINING_FAILED, f"the run that trains the model failed ({source.path})")
    examination = examine(plan, store)
    known = {key: result[key] for key in ("budgets", "steps", "tokens", "seconds", "data_order_sha256")}
    # A result from before they were recorded has none.
    known |= {key: result[key] for key in ("kernels", "continued", "contamination", "compile_seconds") if key in result}
    return _Prepared(load_trained(plan, source), {**known, "trained_in": trained.folder_name}, examination)


def examine(plan: RunPlan, store: Path | None) -> Examination:
    """What is known of the soundness of the plan's models. Raises Unsound for one that fails a clause."""
    examination = Examination(plan, store)
    examination.require_sound()
    return examination


def rehearse_run(plan: RunPlan, place: Path) -> Sequence[Batch]:
    """`rehearse` with the models of the plan; where nothing is trained nothing is lost by trying it for real."""
    if not plan.task.trains or plan.budget.target <= 0:
        return ()

    def build(folder: Path | None) -> PreTrainedModel:
        return build_model(plan) if folder is None else load_weights(plan.model.build(plan.model_config), folder)

    return rehearse(plan, build, place)


# Once more: a plugin may have changed settings while it built the model.
@fixed_surroundings()
def _attempt(plan: RunPlan, prepared: _Prepared, folder: RunFolder, differences: list[str]) -> dict[str, Any]:
    """The result of training and testing, or a failed one with what was known before.

    `differences` are those to the process that was at work on the run before.
    """
    known: dict[str, Any] = {}
    model, training = prepared.model, prepared.training
    try:
        known = facts(plan, model)
        with requested_paths(plan.kernels):
            forget_taken_paths()
            if training is None:
                measured = _train_and_test(plan, prepared, folder, differences)
            else:
                measured = _test(plan, prepared, training, folder)
            taken = _all_taken(
                taken_paths(), (training or {}).get("kernels", {}).get("taken", {}), *_logged_paths(folder)
            )
        result = with_kernel_paths(plan, {**header(plan), **known, **measured}, taken)
        result["notes"] = [*known["notes"], *diagnostics_notes(folder.read_log())]
        result["soundness"] = prepared.examination.record()
        if training is None:
            write_text(folder.model / "README.md", model_card(result, model))
        return result
    except _NOT_OF_THE_RUN:
        raise
    except Exception as error:
        known["soundness"] = prepared.examination.record()
        return failed(plan, known, *_explain(error, plan, folder))
    finally:
        folder.close()


def _all_taken(*records: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Operation -> every path that ran according to one of the records."""
    names = sorted({name for record in records for name in record})
    return {name: sorted({path for record in records for path in record.get(name, ())}) for name in names}


def _logged_paths(folder: RunFolder) -> list[dict[str, list[str]]]:
    """What earlier processes have logged of the paths that ran, up to the checkpoint from which the run went on."""
    return [row["taken"] for row in folder.read_log() if row["kind"] == "kernels"]


def _train_and_test(plan: RunPlan, prepared: _Prepared, folder: RunFolder, differences: list[str]) -> dict[str, Any]:
    model = prepared.model

    def before_saving() -> None:
        # The process that goes on from this checkpoint does not know what ran in this one.
        if taken_paths():
            folder.log({"kind": "kernels", "step": trainer.state.step, "taken": taken_paths()})
        folder.flush_log()

    trainer = Trainer(
        model,
        plan.task,
        plan.trainer,
        plan.seed,
        plan.device,
        plan.precision,
        folder.checkpoints,
        folder.log,
        plan.budget,
        lambda length: plan.model.flops(plan.model_config, length).training_total,
        before_saving,
        lambda name: plan.model.matrix_parts(plan.model_config, name),
        plan.compiled,
    )
    diagnostics = Diagnostics(
        plan.model, model, plan.task, plan.trainer, plan.seed, plan.device, plan.precision, folder.log
    )
    folder.rewind_metrics(trainer.state.step)
    with TrainingProgress(f"{plan.label} seed {plan.seed}", plan.budget.progress(trainer.state)) as progress:
        if trainer.state.step:
            told = f"; {'; '.join(differences)}: not to the bit as in one go" if differences else ""
            progress.note(f"continues from step {trainer.state.step}{told}")
            if differences:
                folder.log({"kind": "continued", "step": trainer.state.step, "differences": differences})

        def validate(step: int) -> None:
            evaluation = plan.task.evaluate(predictor_of(plan, model, tell=progress.evaluated), "validation")
            _log_evaluation(folder, step, "validation", evaluation)
            diagnostics.take(step)
            progress.note(f"step {step}: validation {_headline(plan, evaluation)}")

        records = records_of(plan, folder)
        if not trainer.finished:
            # Of weights that are not there any more.
            records.remove()
            with noted():
                trainer.train(progress, validate)
                trainer.save_final()
        state = trainer.state
        diagnosed = diagnostics.take(state.step) if plan.task.trains else []
        compiling = f", compiled in {duration(state.compile_seconds)}" if plan.compiled else ""
        progress.note(f"trained {state.tokens:,} tokens in {duration(state.seconds)}{compiling}; testing")
        prepared.examination.examine_trained(model, prepared.batches or test_batches(plan, model))
        predictor = predictor_of(plan, model, records=records, tell=progress.evaluated)
        evaluation = plan.task.evaluate(predictor, plan.split)
    _log_evaluation(folder, state.step, plan.split, evaluation)
    write_json_lines(folder.items, evaluation.items)
    folder.require_held()
    write_folder_atomically(folder.model, model.save_pretrained)
    # With the weights stored, one is enough to test again from.
    keep_newest(folder.checkpoints, 1)
    return {**outcome(plan, state, evaluation), "diagnostics": diagnosed, **_continued(folder)}


def _continued(folder: RunFolder) -> dict[str, Any]:
    """Where the run went on in other circumstances than it was begun in; nothing where it did not."""
    rows = [row for row in folder.read_log() if row["kind"] == "continued"]
    return {"continued": [{key: row[key] for key in ("step", "differences")} for row in rows]} if rows else {}


def _test(plan: RunPlan, prepared: _Prepared, training: dict[str, Any], folder: RunFolder) -> dict[str, Any]:
    """The outcome of a model that another run has trained."""
    model = prepared.model
    prepared.examination.examine_trained(model, test_batches(plan, model))
    evaluation = evaluate_trained(plan, model, folder)
    folder.rewind_metrics(0)
    _log_evaluation(folder, training["steps"], plan.split, evaluation)
    write_json_lines(folder.items, evaluation.items)
    return {**training, "measurements": [dataclasses.asdict(measurement) for measurement in evaluation.measurements]}


def _explain(error: Exception, plan: RunPlan, folder: RunFolder) -> tuple[str, str]:
    """Reason and message of a failed run; an unexpected error leaves its traceback in the folder.

    Raises Circumstance when the error tells of one.
    """
    folder.require_held()
    message = (str(error).splitlines() or [type(error).__name__])[0]
    if is_out_of_memory(error):
        if others_hold_it(error, plan.device):
            raise Circumstance("memory-taken", message) from error
        return "out-of-memory", f"{message}; also with one sequence at a time: a smaller model or shorter sequences fit"
    # A failure too may have been found because the system refused something.
    circumstance = circumstance_of(error)
    if circumstance is not None:
        raise circumstance from error
    if isinstance(error, RunFailure):
        return error.reason, str(error)
    write_text(folder.path / "traceback.txt", "".join(traceback.format_exception(error)))
    return "error", f"{type(error).__name__}: {message} (see {folder.path / 'traceback.txt'})"


def _log_evaluation(folder: RunFolder, step: int, split: str, evaluation: Evaluation) -> None:
    """Every look at validation or test data leaves a line in the log."""
    measurements = [dataclasses.asdict(measurement) for measurement in evaluation.measurements]
    folder.log({"kind": "evaluation", "split": split, "step": step, "measurements": measurements})


def _headline(plan: RunPlan, evaluation: Evaluation) -> str:
    """The primary metric over its coordinate in one line; measurements at one place are weighted by their items."""
    task = plan.task
    values = values_by_place(
        task.primary_metric, task.primary_coordinate, map(dataclasses.asdict, evaluation.measurements)
    )
    parts = [f"{place}: {value:.3f}" for place, value in values.items()]
    return f"{task.primary_metric} by {task.primary_coordinate}  " + "  ".join(parts)
