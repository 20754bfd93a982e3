"""Files that are not as they were written: named, set aside, and never loaded half."""

import shutil
import sys
from pathlib import Path

from seqbench.errors import RequestError
from seqbench.surroundings.visible import visible


class DamagedFile(RequestError):
    """A file of a run cannot be read. `path` is the file, `why` says in a few words what is wrong with it."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} cannot be read: {why}\nthe command that made it sets it aside and makes it again")
        self.path, self.why = path, why


class ForeignFile(DamagedFile):
    """A file that is JSON and not of the form that bench writes: damaged, or of another program."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(path, why)
        self.args = (f"{path} was not written by bench ({why}); choose another folder with --output, or move it away",)


class SurplusFile(DamagedFile):
    """A file that nobody has written there, in a folder that is read as a whole."""


def tell(message: str) -> None:
    """One line on standard error."""
    print(visible(f"bench: {message}"), file=sys.stderr, flush=True)


def set_aside(path: Path, damaged: Path, why: str) -> None:
    """Rename the file or folder `path` to <name>.corrupt-<n> and say so on standard error.

    `damaged` is what to name: `path` itself, or the file in it that is not as it was written.
    """
    aside = _free_name(path)
    path.rename(aside)
    _tell(damaged, why, aside)


def copy_aside(path: Path, why: str) -> None:
    """Like `set_aside`, for a file of which most is good: it stays, and is to be mended."""
    aside = _free_name(path)
    shutil.copyfile(path, aside)
    _tell(path, why, aside)


def _free_name(path: Path) -> Path:
    taken = [entry.name.rpartition("-")[2] for entry in path.parent.glob(f"{path.name}.corrupt-*")]
    number = 1 + max((int(digits) for digits in taken if digits.isdecimal()), default=0)
    return path.with_name(f"{path.name}.corrupt-{number}")


def _tell(damaged: Path, why: str, aside: Path) -> None:
    tell(f"{damaged} is damaged ({why}); set aside as {aside.name}")
