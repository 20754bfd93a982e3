"""Puts the oldest or the newest admitted release of transformers into an environment in front of the present one.

    python tests/releases_of_transformers.py FOLDER oldest|newest

FOLDER is an environment made by `python -m venv --without-pip`. It sees every package of the environment that runs
this, and gets transformers, and what that wants in another release, for itself: torch is not installed again.
"""

import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def admitted() -> str:
    """The requirement on transformers."""
    (found,) = [
        requirement
        for requirement in tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
        if requirement.startswith("transformers")
    ]
    return found


def requirement(which: str) -> str:
    """The oldest release that is admitted ("transformers==5.17.*"), or whatever is the newest that is."""
    if which == "newest":
        return admitted()
    lowest = re.search(r">=\s*([\d.]+)", admitted())
    assert lowest is not None, f"{PROJECT} gives no lowest release: {admitted()}"
    return f"transformers=={lowest[1]}.*"


def main(folder: Path, which: str) -> None:
    ours = sysconfig.get_path("purelib")
    theirs = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    # A line of Python: the folders that our own .pth files name are wanted too.
    (theirs / "lent.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    install = ["-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--upgrade", requirement(which)]
    subprocess.run([str(folder / "bin" / "python"), *install], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), sys.argv[2])
