"""The contract of a task plugin, over every installed task, each on its default preset.

The clauses are those of `bench check` and say themselves what they demand (seqbench.testing.task).
"""

import functools

import pytest

from seqbench.registry import TASK_GROUP, announced, find_task
from seqbench.testing.clause import examine
from seqbench.testing.report import PASSED
from seqbench.testing.task.clauses import TASK_CLAUSES
from seqbench.testing.task.subject import TaskSubject


@functools.cache
def subject_of(name: str) -> TaskSubject:
    task_class = find_task(name)
    return TaskSubject(task_class, task_class.default_preset)


@pytest.mark.parametrize("clause", TASK_CLAUSES)
@pytest.mark.parametrize("name", sorted(announced(TASK_GROUP)))
def test_the_task_keeps(name: str, clause: str) -> None:
    outcome = examine(subject_of(name), TASK_CLAUSES[clause])
    assert outcome.state == PASSED, f"{outcome.message}\n{outcome.hint}\n{outcome.traceback}"
