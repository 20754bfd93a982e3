"""What a new plugin is called: its entry point, its module and its classes, and which names are refused."""

import importlib.util
import keyword
import re
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution

from seqbench.errors import RequestError
from seqbench.plugins.registry import installed

KINDS = ("model", "task")

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
# With "Plugin" behind them these are classes that the templates or the kit build on.
_TAKEN_PREFIXES = ("Model", "Task", "Mixer")


@dataclass(frozen=True)
class PluginNames:
    """The names in a plugin's package.

    Attributes:
        kind: "model" or "task".
        name: of the package, its folder and its entry point, such as "my-model".
        module: "my_model".
        prefix: what its classes begin with, "MyModel".
    """

    kind: str
    name: str
    module: str
    prefix: str

    @property
    def dotted_path(self) -> str:
        """The plugin class as the command line takes it from the package's folder."""
        return f"{self.module}:{self.prefix}Plugin"


def names_of(kind: str, name: str) -> PluginNames:
    """The names that follow from `name`, whatever it is worth."""
    words = re.split("[-_]", name)
    return PluginNames(kind, name, "_".join(words), "".join(word.capitalize() for word in words))


def choose_names(kind: str, name: str) -> PluginNames:
    """The names of a new plugin called `name`.

    Raises RequestError for one that cannot be a Python module, that hides one, or that a plugin or package has already.
    """
    if not _NAME.fullmatch(name):
        raise RequestError(
            f"{name!r} cannot name a {kind}: a name is made of small letters, digits and dashes, and begins with a"
            f" letter\n{_instead(kind, _repaired(kind, name))}"
        )
    names = names_of(kind, name)
    problem = _problem(names)
    if problem:
        raise RequestError(f"{name!r} cannot name a new {kind}: {problem}\n{_instead(kind, f'my-{name}')}")
    return names


def _problem(names: PluginNames) -> str:
    """Why these names are taken, or an empty string."""
    if keyword.iskeyword(names.module):
        return f"{names.module!r} is a word of the Python language"
    if names.module in sys.stdlib_module_names:
        return f"{names.module!r} is a module of Python's standard library"
    if names.prefix in _TAKEN_PREFIXES:
        return "its classes would have the names of those that they build on"
    if names.name in installed():
        return "a model or task of that name is installed (see `bench list`)"
    # A folder is a module to Python too; it hides nothing.
    specification = importlib.util.find_spec(names.module)
    if specification is not None and specification.origin is not None:
        return f"there is a Python module {names.module!r} already, {specification.origin}"
    try:
        found = distribution(names.name)
    except PackageNotFoundError:
        return ""
    return f"a package {found.name!r} is installed"


def _repaired(kind: str, name: str) -> str:
    """The nearest name that can be one: "MyModel 2" becomes "my-model-2"."""
    if not name.isascii():
        return f"my-{kind}"
    dashed = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name)
    words = re.findall("[a-z0-9]+", dashed.lower())
    return "-".join(words if words and words[0][0].isalpha() else ["my", *(words or [kind])])


def _instead(kind: str, name: str) -> str:
    return f"type: bench new {kind} {name}"
