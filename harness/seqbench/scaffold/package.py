"""A package for a new plugin, from the templates beside this file."""

import re
from importlib.resources import files
from pathlib import Path

from seqbench.errors import RequestError
from seqbench.scaffold.names import PluginNames, names_of


def render(names: PluginNames) -> dict[str, str]:
    """File name -> text of the package, a flat folder."""
    placeholder = names_of(names.kind, f"my-{names.kind}")
    replacements = {
        placeholder.name: names.name,
        placeholder.module: names.module,
        placeholder.prefix: names.prefix,
    }
    # In one pass: a name that holds a placeholder is not replaced again.
    pattern = re.compile("|".join(map(re.escape, replacements)))

    def fill(text: str) -> str:
        return pattern.sub(lambda found: replacements[found.group()], text)

    template = files("seqbench.scaffold") / names.kind
    templates = ("pyproject.toml", "README.md", f"{placeholder.module}.py", f"test_{placeholder.module}.py")
    return {fill(file): fill((template / file).read_text(encoding="utf-8")) for file in templates}


def write_package(names: PluginNames, into: Path) -> list[Path]:
    """Write the package as a new folder `into`/<name>; returns its files.

    Raises RequestError when something is there already or the folder cannot be written.
    """
    folder = into / names.name
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            what = "exists and is not empty" if folder.is_dir() else "is a file"
            raise RequestError(f"{folder} {what}; choose another name, or another place with --into FOLDER")
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for file, text in render(names).items():
            (folder / file).write_text(text, encoding="utf-8")
            written.append(folder / file)
    except OSError as error:
        raise RequestError(f"cannot write to {folder}: {error.strerror or error}") from error
    return written
