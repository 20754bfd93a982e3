"""A hash of the source that a plugin is made from: whether code was edited under the same version.

It is recorded beside a plugin's version and is no part of a run's hash: an edited comment must not invalidate results.
"""

import ast
import hashlib
import importlib.metadata
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

# Where packages are installed: what is beside a plugin there is somebody else's, unless it came with it.
_SHARED_FOLDERS = ("site-packages", "dist-packages")


def source_sha256(plugin: Any) -> str | None:
    """SHA-256 over the modules that a plugin's class is made from, the same wherever they are installed.

    These are the module of the class, and whatever it imports, functions' imports included, of the same package or
    distribution; of a plugin that is not installed, what lies beside it. Modules count by name and text, with line ends
    alike. None for a class without source, such as one typed into an interpreter.
    """
    kind = plugin if isinstance(plugin, type) else type(plugin)
    return _source_of(kind.__module__)


def named_source_sha256(module: str, name: str) -> str | None:
    """The same of the class that is found as `name` in `module`; nothing is imported.

    None where there is no such source.
    """
    home: str | None = module
    passed = set()
    # Packages often hand on a class that one of their modules defines.
    while home is not None and home not in passed:
        passed.add(home)
        path = _file_of(home)
        origin = None if path is None else _imported_from(name, home, path)
        if origin is None:
            return None if path is None else _source_of(home)
        home, name = origin
    return None


def _imported_from(name: str, module: str, path: Path) -> tuple[str, str] | None:
    """Where a module takes `name` from, and what it is called there; None where it is its own."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _base(node, module, path), alias.name
    return None


@cache
def _source_of(module: str) -> str | None:
    found: dict[str, Path] = {}
    _follow(module, found)
    if not found:
        return None
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
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, module, path)
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _tree(path: Path) -> ast.AST:
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def _base(node: ast.ImportFrom, module: str, path: Path) -> str:
    """The module that `from ... import` names, in full."""
    base = node.module or ""
    if not node.level:
        return base
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    parents = package.split(".") if package else []
    parents = parents[: len(parents) - node.level + 1]
    return ".".join([*parents, *([base] if base else [])])


def _is_near(module: str, origin: str) -> bool:
    """Whether a module belongs to the plugin: of its package, beside it, or installed together with it."""
    if module.partition(".")[0] == origin.partition(".")[0]:
        return True
    here, there = _folder_of(origin), _folder_of(module)
    if here is None or there is None or here.name not in _SHARED_FOLDERS:
        return here is not None and here == there
    # Only here: to ask what came with what, every installed distribution's list of files is read.
    return there.name in _SHARED_FOLDERS and not _came_with(origin).isdisjoint(_came_with(module))


@cache
def _folder_of(module: str) -> Path | None:
    """The folder that the module's top-level package or file lies in; None for Python's own, and what is not found."""
    path = _file_of(module.partition(".")[0])
    if path is None:
        return None
    folder = path.parent.parent if path.name == "__init__.py" else path.parent
    return None if folder in {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")} else folder


def _came_with(module: str) -> frozenset[str]:
    """The distributions that the module's top-level package was installed from."""
    return frozenset(_distributions().get(module.partition(".")[0], ()))


@cache
def _distributions() -> Mapping[str, Sequence[str]]:
    return importlib.metadata.packages_distributions()


@cache
def _file_of(module: str) -> Path | None:
    """The module's source file. Nothing is imported: what is, may differ from one process to the next."""
    top, *inner = module.split(".")
    spec = PathFinder.find_spec(top)
    if spec is None:
        return None
    file = spec.origin
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    for name in inner:
        # The order in which Python looks; a folder without __init__.py is a package without a file.
        candidates = [found for place in places for found in (place / name / "__init__.py", place / f"{name}.py")]
        file = next((str(found) for found in candidates if found.is_file()), None)
        places = [place / name for place in places if (place / name).is_dir()]
    if not file or not file.endswith(".py") or not Path(file).is_file():
        return None
    return Path(file).resolve()
