"""The contract of a task plugin, over every installed task, each on its default preset.

The clauses are those of `bench check` and say themselves what they demand (seqbench.testing.task).
"""

import functools

import pytest

from seqbench.plugins.registry import TASK_GROUP, announced, find_task
from seqbench.testing.clause import examine
from seqbench.testing.report import DECLARED, PASSED
from seqbench.testing.task.clauses import TASK_CLAUSES
from seqbench.testing.task.subject import TaskSubject

# Fields of tasks whose own data is on the hub, which tests do not reach; text that is here stands in for it.
CHANGES = {
    "pg19": {"data": "python-stdlib", "context_bytes": "4096", "test_books": "4", "validation_bytes": "2048"},
}


@functools.cache
def subject_of(name: str) -> TaskSubject:
    task_class = find_task(name)
    return TaskSubject(task_class, task_class.default_preset, CHANGES.get(name))


@pytest.mark.parametrize("clause", TASK_CLAUSES)
@pytest.mark.parametrize("name", sorted(announced(TASK_GROUP)))
def test_the_task_keeps(name: str, clause: str) -> None:
    subject = subject_of(name)
    outcome = examine(subject, TASK_CLAUSES[clause])
    # What a task declares not to fulfil is shown with its reason by `bench check`.
    expected = DECLARED if clause in subject.exemptions else PASSED
    assert outcome.state == expected, f"{outcome.message}\n{outcome.hint}\n{outcome.traceback}"
