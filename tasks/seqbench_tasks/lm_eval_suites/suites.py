"""Suites with their data: loaded, or refused with what is missing. Imports lm_eval and datasets."""

import contextlib
import hashlib
import inspect
import itertools
import json
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets.config
import huggingface_hub.constants
from huggingface_hub.utils import get_session
from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks.manager import TaskDict

from seqbench.errors import RequestError
from seqbench_tasks.lm_eval_suites.config import LmEvalConfig
from seqbench_tasks.lm_eval_suites.definitions import Definitions
from seqbench_tasks.text.bad_records import BadRecords
from seqbench_tasks.text.walk import files_in, located

# As lm-eval's command line has it, so that the same examples are chosen.
_FEW_SHOT_SEED = 1234
# For one request that finds out whether there is a network; datasets itself goes on trying for half a minute.
_SECONDS = 5.0
# Where the data lies, and where the definition: what both hold is hashed.
_PLACES = ("dataset_path", "dataset_name", "dataset_kwargs", "custom_dataset", "metadata")


@dataclass(frozen=True)
class Suite:
    """What one name stands for.

    Attributes:
        name: as the user typed it.
        tasks: name -> task, one for a task, several for groups and tags.
        groups: the group of that name and those inside it.
    """

    name: str
    tasks: Mapping[str, Task]
    groups: Mapping[str, Group]


def load_suites(config: LmEvalConfig) -> list[Suite]:
    """The suites that `config` names, with their data.

    What is on this machine is used as it is: a data set FOLDER/<owner>/<name> in the folder that is included, then one
    that was downloaded before. Only what is missing is asked of the hub.

    Raises RequestError for an unknown suite, one whose data is not there, and one that cannot be measured here.
    """
    folder = None if config.include_path is None else _included(config.include_path)
    definitions = Definitions(folder)
    suites = []
    for name in config.suite:
        manager, spec = definitions.find(name)
        loaded = _load(manager, spec, name, folder)
        suites.append(Suite(name, loaded["tasks"], loaded.get("groups", {})))
    for task in itertools.chain.from_iterable(suite.tasks.values() for suite in suites):
        _require_measurable(task)
        _set_few_shot(task, config.few_shot)
    return suites


def _included(text: str) -> Path:
    """The folder of definitions and data sets. Raises RequestError when it is none, or cannot be read whole."""
    folder = located(text)
    if not folder.is_dir():
        raise RequestError(f"--include-path {text}: there is no such folder")
    # The libraries would wait at a FIFO for ever, and pass over what they cannot read.
    files_in(folder, BadRecords("refuse"))
    return folder.resolve()


def identity(suites: Sequence[Suite], config: LmEvalConfig) -> dict[str, Any]:
    """Hash of the definition and of the documents of every task, and the version that the definition gives itself."""
    tasks = {name: task for suite in suites for name, task in suite.tasks.items()}
    return {
        name: {
            "version": str(task.VERSION),
            "definition": _digest([_definition(task)]),
            "documents": _digest(_documents(task, config.limit)),
        }
        for name, task in sorted(tasks.items())
    }


def few_shot(task: Task) -> int:
    """Number of solved examples before each question."""
    return int(task.get_config("num_fewshot") or 0)


def _load(manager: TaskManager, spec: str, name: str, folder: Path | None) -> TaskDict:
    # Files that are damaged, and data sets that are not as the definition says, raise errors of many kinds.
    try:
        if folder is not None:
            # Without a network, a data set that is not in the folder is one of the hub that cannot be reached.
            with contextlib.suppress(ConnectionError), _cache_of(folder), _without_network():
                return _load_in(folder, manager, spec)
    except Exception as error:
        raise _unusable(name, error) from error
    # datasets takes a folder of the working directory for the data set of that name.
    with tempfile.TemporaryDirectory() as empty:
        try:
            with _without_network():
                return _load_in(Path(empty), manager, spec)
        except Exception as missing:
            if isinstance(missing, ModuleNotFoundError):
                raise _unusable(name, missing) from missing
            if huggingface_hub.constants.HF_HUB_OFFLINE or not _hub_answers():
                raise _unusable(name, missing, "and the hub cannot be reached") from missing
        try:
            # Of a group, some data sets may be in the folder.
            with _cache_of(folder):
                return _load_in(folder or Path(empty), manager, spec)
        except Exception as error:
            raise _unusable(name, error, "and the hub does not give it") from error


def _load_in(working_directory: Path, manager: TaskManager, spec: str) -> TaskDict:
    """Load a suite, without lm-eval's warnings of what its own definitions leave open."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.chdir(working_directory):
            return manager.load([spec])
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _cache_of(folder: Path | None) -> Iterator[None]:
    """A cache for data sets that lie in `folder`, another one whenever a file there has changed; None: the usual one.

    datasets knows a local data set with a README again by its name alone, whatever its files hold and wherever it is.
    """
    if folder is None:
        yield
        return
    digest = hashlib.sha256(bytes(folder))
    for path in files_in(folder, BadRecords("refuse")):
        found = path.stat()
        digest.update(f"{path} {found.st_size} {found.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = Path(before) / f"local-{digest.hexdigest()[:16]}"
    try:
        yield
    finally:
        datasets.config.HF_DATASETS_CACHE = before


def _unusable(name: str, error: Exception, hub: str = "") -> RequestError:
    """What to say of a suite that cannot be loaded; `hub` says what came of asking there, if that was done."""
    if isinstance(error, ModuleNotFoundError):
        return RequestError(
            f"--suite {name}: its definition needs the package {error.name}; type pip install {error.name}"
        )
    if isinstance(error, KeyError):
        return RequestError(f"--suite {name}: its data set lacks {error}, a split or column that its definition names")
    if hub:
        return RequestError(
            f"--suite {name}: its data set is not on this machine, {hub}: {_reason(error)}\n"
            "give the folder that holds it as FOLDER/<owner>/<name> with --include-path FOLDER, or type the command"
            " once where there is a network and copy its cache (~/.cache/huggingface)"
        )
    cause = f"; {_reason(error.__cause__)}" if error.__cause__ is not None else ""
    return RequestError(f"--suite {name} cannot be loaded: {type(error).__name__}: {_reason(error)}{cause}")


def _reason(error: BaseException) -> str:
    """The first line of an error, without the kind of another one in brackets behind it."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return re.sub(r" \(\w+\)$", "", first)


@contextlib.contextmanager
def _without_network() -> Iterator[None]:
    """As if HF_HUB_OFFLINE=1 had been set: the libraries read the variable once, when they are imported."""
    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE = before


def _hub_answers() -> bool:
    try:
        get_session().head(huggingface_hub.constants.ENDPOINT, timeout=_SECONDS)
    # Without a network every layer below has its own kind of error.
    except Exception:
        return False
    return True


def _require_measurable(task: Task) -> None:
    if getattr(task, "UNSAFE_CODE", False) or task.get_config("unsafe_code"):
        raise RequestError(
            f"suite {task.task_name} runs code that the model writes, which is not done here; use lm-eval's own command"
        )
    if getattr(task, "MULTIMODAL", False):
        raise RequestError(f"suite {task.task_name} shows pictures or sound, and the models here read text")
    if not len(list(itertools.islice(task.eval_docs, 1))):
        raise RequestError(f"suite {task.task_name}: its data set holds no documents")


def _set_few_shot(task: Task, wanted: int | None) -> None:
    """As lm-eval's command does it: a suite that says 0 keeps it."""
    defined = task.get_config("num_fewshot")
    if wanted is not None and defined != 0:
        task.set_config(key="num_fewshot", value=wanted)
    elif defined is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=_FEW_SHOT_SEED)


def _definition(task: Task) -> dict[str, Any]:
    return {key: value for key, value in task.dump_config().items() if key not in _PLACES}


def _documents(task: Task, limit: int | None) -> Iterator[Any]:
    yield from itertools.islice(task.eval_docs, limit)
    if few_shot(task):
        yield from task.fewshot_docs() or ()


def _digest(records: Iterator[Any] | list[Any]) -> str:
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(record, sort_keys=True, default=_plain).encode() + b"\n")
    return digest.hexdigest()


def _plain(value: Any) -> str:
    """Functions by their source; an object's own text may hold its address."""
    if not callable(value):
        return str(value)
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        return getattr(value, "__qualname__", type(value).__qualname__)
