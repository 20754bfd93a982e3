"""Where in an author's file something is: for errors, the line; for a wrong answer, the function that gave it."""

import inspect
import linecache
import os
import sys
import traceback
from pathlib import Path

import torch

import seqbench

_CORE = Path(seqbench.__file__).parent
# What is nobody's own: the core, torch and all that is installed beside it, and the standard library.
_NOT_THE_AUTHORS = tuple(
    f"{folder}{os.sep}" for folder in (_CORE, Path(torch.__file__).parents[1], Path(os.__file__).parent)
)


def place_of_error(error: BaseException, plugin: type) -> str:
    """`file:line in function: source` of the last line of the author's own that was run, or an empty string.

    That of the plugin's own package, wherever it is installed; otherwise of what is installed nowhere.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = _folder_of(plugin)
    for is_the_authors in (
        lambda file: own is not None and Path(file).is_relative_to(own),
        lambda file: not file.startswith((*_NOT_THE_AUTHORS, "<")),
    ):
        mine = [frame for frame in frames if is_the_authors(frame.filename)]
        if mine:
            last = mine[-1]
            return f"{_shown(last.filename)}:{last.lineno} in {last.name}: {(last.line or '').strip()}"
    return ""


def place_of(owner: type, method: str) -> str:
    """`file:line` where a method of the author's is defined, or its class where it is inherited from elsewhere."""
    code = getattr(inspect.unwrap(getattr(owner, method)), "__code__", None)
    if code is not None and not code.co_filename.startswith((*_NOT_THE_AUTHORS, "<")):
        file, number = code.co_filename, code.co_firstlineno
    else:
        try:
            file, number = inspect.getfile(owner), inspect.getsourcelines(owner)[1]
        except (OSError, TypeError):
            # Made by a function that has no source.
            return ""
    while linecache.getline(file, number).lstrip().startswith("@"):
        number += 1
    return f"{_shown(file)}:{number}: {linecache.getline(file, number).strip()}"


def _folder_of(plugin: type) -> Path | None:
    """Of the plugin's package; the file itself where it is a module on its own."""
    module = sys.modules.get(plugin.__module__)
    file = getattr(module, "__file__", None)
    if file is None:
        return None
    return Path(file).parent if "." in plugin.__module__ else Path(file)


def _shown(file: str) -> str:
    """Short where the file lies in the working folder."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file
