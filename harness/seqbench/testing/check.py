"""A plugin, named or given, examined clause by clause."""

from collections.abc import Iterable, Mapping
from typing import Any

from seqbench.contracts import ModelPlugin, TaskPlugin
from seqbench.contracts.suggestions import did_you_mean
from seqbench.errors import RequestError
from seqbench.plugins.registry import find_model, find_task
from seqbench.testing.model.clauses import MODEL_CLAUSES
from seqbench.testing.model.subject import ModelSubject
from seqbench.testing.order import examine_in_order
from seqbench.testing.report import Report
from seqbench.testing.task.clauses import TASK_CLAUSES
from seqbench.testing.task.subject import TaskSubject


def check_model_plugin(
    plugin: str | ModelPlugin[Any] | type[ModelPlugin[Any]],
    *,
    preset: str | None = None,
    clauses: Iterable[str] | None = None,
) -> Report:
    """Examine a model plugin and raise when it fails a clause.

    Args:
        plugin: a name as on the command line ("package.module:Class" included), a plugin class, or an instance.
        preset: the preset to examine; None is the plugin's default one, which should be small.
        clauses: names of the clauses to run, and with them what they rest on; None runs all.

    Returns:
        The report of a plugin without failures; it names what the plugin declares not to fulfil.

    Raises:
        ContractBroken: an AssertionError that lists every failed clause; its `report` holds all outcomes.
        RequestError: there is no such plugin, preset or clause.
    """
    report = examine_model_plugin(plugin, preset=preset, clauses=clauses)
    report.raise_for_failures()
    return report


def check_task_plugin(
    task: str | type[TaskPlugin[Any]],
    *,
    preset: str | None = None,
    clauses: Iterable[str] | None = None,
    changes: Mapping[str, str] | None = None,
) -> Report:
    """Examine a task plugin and raise when it fails a clause; see `check_model_plugin`.

    `changes` are field -> text, as in --set: such as where the task's data lies.
    """
    report = examine_task_plugin(task, preset=preset, clauses=clauses, changes=changes)
    report.raise_for_failures()
    return report


def examine_model_plugin(
    plugin: str | ModelPlugin[Any] | type[ModelPlugin[Any]],
    *,
    preset: str | None = None,
    clauses: Iterable[str] | None = None,
) -> Report:
    """The report of a model plugin, failures or not; arguments as `check_model_plugin`."""
    if isinstance(plugin, str):
        name, plugin = plugin, find_model(plugin)
    else:
        name, plugin = plugin.name, plugin() if isinstance(plugin, type) else plugin
    subject = ModelSubject(plugin, _choose_preset(preset, plugin.default_preset, plugin.presets, f"model {name}"))
    outcomes = examine_in_order(subject, MODEL_CLAUSES, _choose_clauses(clauses, MODEL_CLAUSES))
    return Report(name, "model", subject.preset, tuple(outcomes))


def examine_task_plugin(
    task: str | type[TaskPlugin[Any]],
    *,
    preset: str | None = None,
    clauses: Iterable[str] | None = None,
    changes: Mapping[str, str] | None = None,
) -> Report:
    """The report of a task plugin, failures or not; arguments as `check_task_plugin`."""
    name, task_class = (task, find_task(task)) if isinstance(task, str) else (task.name, task)
    subject = TaskSubject(
        task_class, _choose_preset(preset, task_class.default_preset, task_class.presets, f"task {name}"), changes
    )
    outcomes = examine_in_order(subject, TASK_CLAUSES, _choose_clauses(clauses, TASK_CLAUSES))
    return Report(name, "task", subject.preset, tuple(outcomes))


def _choose_preset(wanted: str | None, default: str, presets: Any, owner: str) -> str:
    if wanted is not None and wanted not in presets:
        raise RequestError(
            f"{owner} has no preset {wanted!r}{did_you_mean(wanted, presets)}\nits presets are: {', '.join(presets)}"
        )
    return wanted or default


def _choose_clauses(wanted: Iterable[str] | None, known: Any) -> list[str]:
    names = list(known) if wanted is None else list(wanted)
    for name in names:
        if name not in known:
            raise RequestError(f"there is no clause {name!r}{did_you_mean(name, known)}\nclauses: {', '.join(known)}")
    return names
