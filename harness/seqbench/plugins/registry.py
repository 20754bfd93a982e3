"""Plugins found by entry point, or by dotted path without being installed.

Importing this module imports no plugin. A plugin that fails to import is listed as broken and harms nobody else.
"""

import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from seqbench.contracts import ModelPlugin, TaskPlugin
from seqbench.contracts.suggestions import did_you_mean
from seqbench.errors import RequestError
from seqbench.plugins.plugin_source import named_source_sha256
from seqbench.surroundings.stopping import Stopped

MODEL_GROUP = "bench.models"
TASK_GROUP = "bench.tasks"

# package.module:Class or package.module.Class.
_DOTTED_PATH = re.compile(r"\w+(\.\w+)*[:.]\w+")


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that is announced but cannot be used, and why."""

    name: str
    target: str
    reason: str
    traceback: str


def find_model(name: str) -> ModelPlugin[Any]:
    """The model plugin called `name`.

    `name` is that of an entry point, "<entry point>:<argument>" for plugins that take one (such as a folder or a
    model type), or a dotted path "package.module:Class". Raises RequestError when there is none or it is broken.
    """
    base, _, argument = name.partition(":")
    points = entry_points_of(MODEL_GROUP)
    if argument and base in points:
        plugin_class = _load_announced(base, points[base], MODEL_GROUP, ModelPlugin)
        return _construct(plugin_class, name, argument)
    plugin_class = _find(name, MODEL_GROUP, ModelPlugin, "model")
    return _construct(plugin_class, name)


def find_task(name: str) -> type[TaskPlugin[Any]]:
    """The task plugin class called `name`: an entry point or a dotted path. Raises RequestError like `find_model`."""
    return _find(name, TASK_GROUP, TaskPlugin, "task")


def entry_points_of(group: str) -> dict[str, list[EntryPoint]]:
    """Announced plugins of an entry-point group by name; nothing is imported.

    There is more than one entry point where packages announce different things under the same name.
    """
    points: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=group):
        known = points.setdefault(point.name, [])
        if all(other.value != point.value for other in known):
            known.append(point)
    return dict(sorted(points.items()))


def announced(group: str) -> dict[str, type | BrokenPlugin]:
    """Every announced plugin of an entry-point group, imported, by name; broken ones as `BrokenPlugin`."""
    return {name: load_announced(name, points, group) for name, points in entry_points_of(group).items()}


def load_announced(name: str, points: list[EntryPoint], group: str) -> type | BrokenPlugin:
    """An announced plugin, imported; a broken one as `BrokenPlugin`."""
    target = " and ".join(point.value for point in points)
    try:
        contract = ModelPlugin if group == MODEL_GROUP else TaskPlugin
        with _kept_torch_settings():
            return _check_contract(_only(name, points, group).load(), target, contract)
    except Stopped:
        raise
    # A plugin's module may raise anything, KeyboardInterrupt too.
    except BaseException as error:
        return BrokenPlugin(name, target, _reason(error), traceback.format_exc())


def source_of_name(name: str, group: str) -> str | None:
    """Hash of the source of the plugin called `name`, see `seqbench.plugins.plugin_source`; nothing is imported.

    None where there is no such plugin.
    """
    points = entry_points_of(group).get(name.partition(":")[0])
    if points:
        return named_source_sha256(points[0].module, points[0].attr)
    module, colon, attribute = name.partition(":")
    if not colon:
        module, _, attribute = name.rpartition(".")
    return named_source_sha256(module, attribute) if _DOTTED_PATH.fullmatch(name) else None


def lies_in_working_folder(name: str) -> bool:
    """Whether importing the plugin called `name` would run a file that is found in the working folder alone.

    Names of entry points, modules that this process has imported, and what is installed or on PYTHONPATH are no such.
    """
    module = re.split("[:.]", name)[0]
    if name.partition(":")[0] in installed() or module in sys.modules or not _DOTTED_PATH.fullmatch(name):
        return False
    here = os.path.realpath(os.getcwd())
    # Whoever puts the folder on PYTHONPATH has said that its modules are wanted.
    wanted = {os.path.realpath(place) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place}
    elsewhere = [place for place in sys.path if place and (os.path.realpath(place) != here or here in wanted)]
    return PathFinder.find_spec(module, elsewhere) is None and PathFinder.find_spec(module, [here]) is not None


def installed() -> set[str]:
    """Names of all announced models and tasks; none is imported."""
    return {*entry_points_of(MODEL_GROUP), *entry_points_of(TASK_GROUP)}


def takes_argument(plugin_class: type) -> bool:
    """Whether the plugin is named with an argument, as in "name:argument"."""
    return len(inspect.signature(plugin_class).parameters) > 0


@contextmanager
def _kept_torch_settings() -> Iterator[None]:
    # Names alone are looked up without torch, which takes seconds to import.
    from seqbench.surroundings.torch_settings import kept_torch_settings

    with kept_torch_settings():
        yield


def _only(name: str, points: list[EntryPoint], group: str) -> EntryPoint:
    if len(points) > 1:
        raise RequestError(
            f"installed packages announce {name!r} under {group!r} more than once:"
            f" {' and '.join(point.value for point in points)}; uninstall one, or name the class by its dotted path"
        )
    return points[0]


def _find(name: str, group: str, contract: type, kind: str) -> Any:
    points = entry_points_of(group)
    if name in points:
        return _load_announced(name, points[name], group, contract)
    if _DOTTED_PATH.fullmatch(name):
        return _load_dotted(name, contract, kind, points)
    raise RequestError(
        f"unknown {kind} {name!r}{did_you_mean(name, points)}\n"
        f"installed {kind}s: {', '.join(sorted(points)) or 'none'}; or give a dotted path package.module:Class"
    )


def _load_announced(name: str, points: list[EntryPoint], group: str, contract: type) -> Any:
    entry_point = _only(name, points, group)
    try:
        with _kept_torch_settings():
            return _check_contract(entry_point.load(), entry_point.value, contract)
    except (RequestError, Stopped):
        raise
    except BaseException as error:
        raise _broken(name, entry_point.value, error) from error


def _load_dotted(name: str, contract: type, kind: str, points: Iterable[str]) -> Any:
    module_name, _, attribute = name.partition(":")
    if not attribute:
        module_name, _, attribute = name.rpartition(".")
    try:
        with _kept_torch_settings():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing != module_name and not module_name.startswith(missing + "."):
            raise _broken(name, name, error) from error
        raise RequestError(
            f"unknown {kind} {name!r}: there is no module {missing!r}{did_you_mean(name, points)}\n"
            f"installed {kind}s: {', '.join(sorted(points))}; a dotted path reads package.module:Class, seen from the"
            " folder where the command is typed or from PYTHONPATH"
        ) from error
    except Stopped:
        raise
    except BaseException as error:
        raise _broken(name, name, error) from error
    if not hasattr(module, attribute):
        names = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise RequestError(f"module {module_name!r} has no {attribute!r}{did_you_mean(attribute, names)}")
    return _check_contract(getattr(module, attribute), name, contract)


def _check_contract(target: Any, path: str, contract: type) -> Any:
    if not (isinstance(target, type) and issubclass(target, contract)):
        raise RequestError(f"{path} is not a {contract.__name__}; see docs/ for the contract of a plugin")
    missing = sorted(getattr(target, "__abstractmethods__", ()))
    required = [key for key in contract.__annotations__ if not hasattr(target, key)]
    if missing or required:
        raise RequestError(
            f"{path} does not define {', '.join(missing + required)}, which {contract.__name__} requires"
        )
    # A plugin that is named with an argument may find its presets when it has seen it.
    presets = target.presets  # type: ignore[attr-defined]
    if isinstance(presets, Mapping) and target.default_preset not in presets:  # type: ignore[attr-defined]
        raise RequestError(
            f"{path} has the default preset {target.default_preset!r},"  # type: ignore[attr-defined]
            f" which is not among its presets: {', '.join(presets) or 'none'}"
        )
    return target


def _construct(plugin_class: Any, name: str, *arguments: str) -> ModelPlugin[Any]:
    wanted = takes_argument(plugin_class)
    if wanted and not arguments:
        raise RequestError(f"model {name!r} needs an argument, as {name}:<argument>; it is {plugin_class.summary}")
    if arguments and not wanted:
        raise RequestError(f"model {name.partition(':')[0]!r} takes no argument after a colon")
    try:
        with _kept_torch_settings():
            return plugin_class(*arguments)
    except RequestError:
        raise
    except Exception as error:
        raise _broken(name, plugin_class.__qualname__, error) from error


def _broken(name: str, target: str, error: BaseException) -> RequestError:
    return RequestError(
        f"plugin {name!r} ({target}) cannot be used: {_reason(error)}\n"
        "the same command with --traceback shows where; `bench list` shows every plugin with its state"
    )


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if not isinstance(error, RequestError) else str(error)
