"""Plugins found by entry point, or by dotted path without being installed.

Importing this module imports no plugin. A plugin that fails to import is listed as broken and harms nobody else.
"""

import importlib
import inspect
import traceback
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from seqbench.contracts import ModelPlugin, TaskPlugin
from seqbench.errors import RequestError
from seqbench.suggestions import did_you_mean

MODEL_GROUP = "bench.models"
TASK_GROUP = "bench.tasks"


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
    if argument and base in _entry_points(MODEL_GROUP):
        plugin_class = _load_announced(base, MODEL_GROUP, ModelPlugin)
        return _construct(plugin_class, name, argument)
    plugin_class = _find(name, MODEL_GROUP, ModelPlugin, "model")
    return _construct(plugin_class, name)


def find_task(name: str) -> type[TaskPlugin[Any]]:
    """The task plugin class called `name`: an entry point or a dotted path. Raises RequestError like `find_model`."""
    return _find(name, TASK_GROUP, TaskPlugin, "task")


def announced(group: str) -> dict[str, type | BrokenPlugin]:
    """Every announced plugin of an entry-point group, imported, by name; broken ones as `BrokenPlugin`."""
    contract = ModelPlugin if group == MODEL_GROUP else TaskPlugin
    found: dict[str, type | BrokenPlugin] = {}
    for name, entry_point in sorted(_entry_points(group).items()):
        try:
            found[name] = _check_contract(entry_point.load(), entry_point.value, contract)
        except Exception as error:
            found[name] = BrokenPlugin(name, entry_point.value, _reason(error), traceback.format_exc())
    return found


def takes_argument(plugin_class: type) -> bool:
    """Whether the plugin is named with an argument, as in "name:argument"."""
    return len(inspect.signature(plugin_class).parameters) > 0


def _entry_points(group: str) -> dict[str, EntryPoint]:
    points: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        known = points.get(point.name)
        if known is not None and known.value != point.value:
            raise RequestError(
                f"two installed packages announce {point.name!r} under {group!r}: {known.value} and {point.value};"
                " uninstall one, or name the class by its dotted path"
            )
        points[point.name] = point
    return points


def _find(name: str, group: str, contract: type, kind: str) -> Any:
    points = _entry_points(group)
    if name in points:
        return _load_announced(name, group, contract)
    if ":" in name or "." in name:
        return _load_dotted(name, contract, kind, points)
    raise RequestError(
        f"unknown {kind} {name!r}{did_you_mean(name, points)}\n"
        f"installed {kind}s: {', '.join(sorted(points)) or 'none'}; or give a dotted path package.module:Class"
    )


def _load_announced(name: str, group: str, contract: type) -> Any:
    entry_point = _entry_points(group)[name]
    try:
        return _check_contract(entry_point.load(), entry_point.value, contract)
    except RequestError:
        raise
    except Exception as error:
        raise _broken(name, entry_point.value, error) from error


def _load_dotted(name: str, contract: type, kind: str, points: dict[str, EntryPoint]) -> Any:
    module_name, _, attribute = name.partition(":")
    if not attribute:
        module_name, _, attribute = name.rpartition(".")
    try:
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
    except Exception as error:
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
    return target


def _construct(plugin_class: Any, name: str, *arguments: str) -> ModelPlugin[Any]:
    wanted = takes_argument(plugin_class)
    if wanted and not arguments:
        raise RequestError(f"model {name!r} needs an argument: type {name}:<argument>; `bench show {name}` says which")
    if arguments and not wanted:
        raise RequestError(f"model {name.partition(':')[0]!r} takes no argument after a colon")
    return plugin_class(*arguments)


def _broken(name: str, target: str, error: Exception) -> RequestError:
    return RequestError(
        f"plugin {name!r} ({target}) cannot be used: {_reason(error)}\n"
        "the same command with --traceback shows where; `bench list` shows every plugin with its state"
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if not isinstance(error, RequestError) else str(error)
