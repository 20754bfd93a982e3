"""A hash of the source that a plugin is made from: whether code was edited under the same version.

It is recorded beside a plugin's version and is no part of a run's hash: an edited comment must not invalidate results.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

# Where packages are installed: what is beside a plugin there is somebody else's, unless it came with it.
_SHARED_FOLDERS = ("site-packages", "dist-packages")


def source_sha256(plugin: Any) -> str | None:
    """SHA-256 over the modules that a plugin's class is made from, the same wherever they are installed.

    These are the module of the class and of each class that it inherits from, and whatever they import, functions'
    imports included, of the same package or distribution; of a plugin that is not installed, what lies beside it.
    Modules count by name and text, with line ends alike. None for a class without source, such as one typed into an
    interpreter.
    """
    kind = plugin if isinstance(plugin, type) else type(plugin)
    return _source_of(kind)


@cache
def _source_of(kind: type) -> str | None:
    if _file_of(kind.__module__) is None:
        return None
    found: dict[str, Path] = {}
    for base in kind.__mro__:
        # What the contract itself says is the core's, which has a version of its own.
        if base is kind or _is_near(base.__module__, kind.__module__):
            _follow(base.__module__, found)
    digest = hashlib.sha256()
    for name, path in sorted(found.items()):
        text = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{name} {len(text)}\n".encode() + text)
    return digest.hexdigest()


def _follow(name: str, found: dict[str, Path]) -> None:
    """Add a module, the packages that it lies in, and what all of them import that belongs to them."""
    waiting = [name]
    while waiting:
        module = waiting.pop()
        path = _file_of(module)
        if module in found or path is None:
            continue
        found[module] = path
        parts = module.split(".")
        waiting += [".".join(parts[:length]) for length in range(1, len(parts))]
        waiting += [imported for imported in _imports(module, path) if _is_near(imported, name)]


def _imports(module: str, path: Path) -> Iterator[str]:
    """Names of modules that the file may import; names of what is no module are among them."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".") if package else []
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _is_near(module: str, origin: str) -> bool:
    """Whether a module belongs to the plugin: of its package, beside it, or installed together with it."""
    if module.partition(".")[0] == origin.partition(".")[0]:
        return True
    return bool(_owners(origin) & _owners(module))


@cache
def _owners(module: str) -> frozenset[str]:
    """The folder that the module's top-level package or file lies in or, where it is installed, its distributions."""
    top = module.partition(".")[0]
    path = _file_of(top)
    if path is None:
        return frozenset()
    folder = path.parent.parent if path.name == "__init__.py" else path.parent
    if folder.name in _SHARED_FOLDERS:
        return frozenset(_distributions().get(top, ()))
    own = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
    return frozenset() if folder in own else frozenset({str(folder)})


@cache
def _distributions() -> Mapping[str, Sequence[str]]:
    return importlib.metadata.packages_distributions()


@cache
def _file_of(module: str) -> Path | None:
    """The module's source file; nothing is imported that was not."""
    loaded = sys.modules.get(module)
    file = getattr(loaded, "__file__", None)
    if loaded is None:
        parent, _, _ = module.rpartition(".")
        # Asking for a submodule imports its package.
        if parent and parent not in sys.modules:
            return None
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, AttributeError, ValueError):
            return None
        file = spec.origin if spec is not None else None
    if not file or not str(file).endswith(".py") or not Path(file).is_file():
        return None
    return Path(file).resolve()
