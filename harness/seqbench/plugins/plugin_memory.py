"""What plugins say of themselves, remembered from one command to the next: importing them takes seconds.

Kept in the user's folder of caches, or in $SEQBENCH_CACHE, one small JSON file a plugin. It may be deleted at any time,
and where it cannot be written every command asks the plugins again.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from seqbench.errors import RequestError
from seqbench.store.files import json_text
from seqbench.store.reader import parse, read_bytes
from seqbench.store.sealed import is_as_sealed, sealed_document, without_seal

# Raised when what is remembered changes its form.
_FORM = 2


def remembered(
    what: str, points: Sequence[EntryPoint], ask: Callable[[], dict[str, Any]], renew: bool = False
) -> dict[str, Any]:
    """What `ask` returned for these entry points before, or returns now; as JSON has it, tuples as lists.

    Args:
        what: is remembered; the same name must always mean the same question.
        points: entry points of the plugin. Their names and targets, the sources of their packages and of the core, and
            the versions of everything that is installed decide whether an answer still holds.
        ask: imports the plugin; what it raises is raised.
        renew: ask whatever is remembered.
    """
    path = _folder() / f"{_key(what, points)}.json"
    if not renew:
        # Whatever lies there: at worst the plugin is asked again.
        with suppress(OSError, ValueError, RequestError):
            content = parse(read_bytes(path))
            if isinstance(content, dict) and is_as_sealed(content):
                return without_seal(content)
    text = json_text(sealed_document(json.loads(json.dumps(ask(), default=str))))
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    return without_seal(json.loads(text))


def _folder() -> Path:
    named = os.environ.get("SEQBENCH_CACHE")
    if named:
        return Path(os.path.expanduser(named)) / "plugins"
    # Unlike Path.home(), this raises nothing where no home is known.
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "seqbench" / "plugins"


def _key(what: str, points: Sequence[EntryPoint]) -> str:
    facts = [
        _FORM,
        what,
        sys.version,
        # A module that a plugin lacks may be found through it.
        os.environ.get("PYTHONPATH", ""),
        _installed(),
        [(point.group, point.name, point.value, _source_of(point.module)) for point in points],
        _source_of("seqbench"),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


@cache
def _installed() -> list[str]:
    """Names of the folders that say which distributions, of which versions, are installed."""
    found = set()
    for place in sys.path:
        with suppress(OSError):
            found |= {name for name in os.listdir(place or ".") if name.endswith((".dist-info", ".egg-info"))}
    return sorted(found)


@cache
def _source_of(module: str) -> str:
    """Hash of the Python files of the top-level package, or module, that `module` lies in; nothing is imported."""
    digest = hashlib.sha256()
    for path, name in sorted(_files(module.partition(".")[0])):
        with suppress(OSError):
            digest.update(f"{name}\n".encode() + Path(path).read_bytes())
    return digest.hexdigest()


def _files(top: str) -> Iterator[tuple[str, str]]:
    """Path of each source file, and its name inside the package."""
    spec = PathFinder.find_spec(top)
    if spec is None:
        return
    if spec.submodule_search_locations is None:
        if spec.origin:
            yield spec.origin, top
        return
    for root in spec.submodule_search_locations:
        for place, _, names in os.walk(root):
            for name in names:
                if name.endswith(".py"):
                    path = os.path.join(place, name)
                    yield path, os.path.relpath(path, root)
