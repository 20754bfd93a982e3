"""Clauses on what a task says of itself: words, settings, presets and trainer settings."""

import dataclasses

from seqbench.contracts import TaskPreset, describe_settings
from seqbench.contracts.suggestions import did_you_mean
from seqbench.testing.report import ClauseFailure
from seqbench.testing.settings import require_settings, require_words
from seqbench.testing.task.subject import TaskSubject
from seqbench.training.settings import TrainerSettings


def settings(subject: TaskSubject) -> None:
    """Name, summary, version and metric are set, and every setting is documented."""
    task_class = subject.task_class
    require_words(task_class, ("name", "summary", "version", "primary_metric", "primary_coordinate"))
    if not isinstance(task_class.higher_is_better, bool):
        raise ClauseFailure(f"higher_is_better is {task_class.higher_is_better!r}, expected True or False")
    require_settings(task_class.config_class, task_class.presets[subject.preset].config)
    for reach in (None, 12):
        notes = subject.fresh().report_notes(reach)
        if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
            raise ClauseFailure(f"report_notes({reach}) is {notes!r}, expected a list of lines")


def presets(subject: TaskSubject) -> None:
    """Every preset holds documented settings that make a task, a summary, and settings that the trainer has."""
    task_class = subject.task_class
    known = describe_settings(TrainerSettings)
    if task_class.default_preset not in task_class.presets:
        raise ClauseFailure(f"default_preset {task_class.default_preset!r} is not among the presets")
    for name, preset in task_class.presets.items():
        if not isinstance(preset, TaskPreset) or not preset.summary:
            raise ClauseFailure(f"preset {name} is {preset!r}, expected a TaskPreset with a summary")
        require_settings(task_class.config_class, preset.config)
        for field in preset.trainer:
            if field not in known:
                raise ClauseFailure(
                    f"preset {name} sets {field!r}, which the trainer has not{did_you_mean(field, known)}"
                )
        dataclasses.replace(TrainerSettings(), **preset.trainer)
        task = task_class(preset.config)
        for what in ("vocab_size", "longest_sequence", "estimated_sequence", "tokens_per_evaluation_call"):
            value = getattr(task, what)
            if not isinstance(value, int) or value < 1:
                raise ClauseFailure(f"preset {name}: {what} is {value!r}, expected a whole number from 1 on")
