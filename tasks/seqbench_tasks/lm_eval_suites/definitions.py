"""Where a suite is defined. Imports lm_eval."""

import re
from functools import cache, cached_property
from pathlib import Path

import lm_eval.tasks
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Kind

from seqbench.contracts.suggestions import did_you_mean
from seqbench.errors import RequestError

# Suites of our own, which need no data set.
_OWN = Path(__file__).parent / "tiny"
_LIBRARY = Path(lm_eval.tasks.__file__).parent

# A definition's own name stands at the beginning of a line; below `task:` of a group stands a list.
_TASK = re.compile(rb"^task:[ \t]*[\"']?([^\s\"'#]+)[\"']?[ \t]*(?:#.*)?$", re.MULTILINE)
_NAMES = re.compile(rb"^(?:group|tag):[ \t]*[\"']?([^\s\"'#]+)[\"']?[ \t]*(?:#.*)?$", re.MULTILINE)


class Definitions:
    """Suites by name: those of a folder of the user's, and those of lm-eval.

    lm-eval's own index of its 14,000 definitions takes 10 seconds to build. A task that has one definition is found by
    its text in a fraction of a second; the index is made for groups, tags and names with several definitions.

    Args:
        include_path: the user's folder; its definitions come before lm-eval's. None for none.
    """

    def __init__(self, include_path: Path | None) -> None:
        self._paths: list[str | Path] = [_OWN, *([include_path] if include_path else [])]

    def find(self, name: str) -> tuple[TaskManager, str]:
        """What loads the suite called `name`, and how it is called there.

        Raises RequestError for an unknown name, which suggests the nearest ones.
        """
        if self._is_whole(name):
            return self._near, name
        files = self._tasks.get(name, [])
        if len(files) == 1 and name not in self._near.task_index:
            return self._near, str(files[0])
        if not self._in_library(name) and name not in self._near.task_index:
            raise self._unknown(name)
        if name not in self._all.task_index:
            raise self._unknown(name)
        return self._all, name

    def _is_whole(self, name: str) -> bool:
        """Whether a suite and all its parts are defined outside of lm-eval."""
        entry = self._near.task_index.get(name)
        if entry is None:
            return False
        if entry.kind is Kind.TAG:
            return not self._in_library(name)
        if entry.kind is not Kind.GROUP:
            return True
        parts = (entry.cfg or {}).get("task", [])
        return all(isinstance(part, str) and self._is_whole(part) for part in parts)

    def _in_library(self, name: str) -> bool:
        """Whether lm-eval's definitions contain the name at all, in whatever role."""
        return any(name.encode() in text for text in _library().values())

    @cached_property
    def _near(self) -> TaskManager:
        return TaskManager(include_path=self._paths, include_defaults=False)

    @cached_property
    def _all(self) -> TaskManager:
        return TaskManager(include_path=self._paths)

    @cached_property
    def _tasks(self) -> dict[str, list[Path]]:
        """Name -> the files of lm-eval that define a task of that name."""
        found: dict[str, list[Path]] = {}
        for path, text in _library().items():
            for name in _TASK.findall(text):
                found.setdefault(name.decode(), []).append(path)
        return found

    def _unknown(self, name: str) -> RequestError:
        groups = {found.decode() for text in _library().values() for found in _NAMES.findall(text)}
        known = sorted({*self._near.all_tasks, *self._tasks, *groups})
        return RequestError(
            f"--suite {name}: lm-eval has no task, group or tag of that name{did_you_mean(name, known)}\n"
            "`lm_eval ls tasks` lists them; definitions of your own are found with --include-path FOLDER"
        )


@cache
def _library() -> dict[Path, bytes]:
    """The text of every definition of lm-eval, some 10 MB."""
    return {path: path.read_bytes() for path in sorted(_LIBRARY.rglob("*.yaml"))}
