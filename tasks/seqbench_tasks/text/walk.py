"""The files below a folder: links are followed, each file comes once, and what cannot be read is named."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from seqbench.contracts.suggestions import did_you_mean
from seqbench.errors import RequestError
from seqbench_tasks.text.bad_records import BadRecords
from seqbench_tasks.text.config import HUB_PREFIX
from seqbench_tasks.text.names import is_hidden, printable
from seqbench_tasks.text.open_files import kind_of, unreadable
from seqbench_tasks.text.splits import split_called

# What the hub's library keeps a data set in: its files have names in the last one only, where they are links.
_HUB_CACHE = {"blobs", "refs", "snapshots"}


def located(text: str) -> Path:
    """The place that a user has named. Raises RequestError when it has a home folder in it that nobody has."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise RequestError(f"{text}: {error}") from error


def is_folder(root: Path) -> bool:
    """Whether `root` is a folder, and not a file. Raises RequestError when it is neither, or not there."""
    try:
        kind = kind_of(os.stat(root).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise RequestError(_missing(root)) from None
    except (OSError, ValueError) as error:
        raise RequestError(f"{printable(str(root))} cannot be read: {error}") from error
    if kind is None:
        return False
    if kind != "a folder":
        raise RequestError(f"{printable(str(root))} is {kind}; name a file, or a folder with files of text")
    return True


def files_in(root: Path, bad: BadRecords) -> list[Path]:
    """The files below the folder `root`, hidden ones left out, in an order that depends on their names alone.

    A file or folder that several links lead to comes once in each split: at its own place, if that is in `root`. What
    cannot be read, and what is no file, is a bad record.

    Raises RequestError when there is no such folder, or something bad that is fatal.
    """
    if not is_folder(root):
        raise RequestError(f"{printable(str(root))} is a file, and no folder")
    walk = _Walk(root, bad)
    walk.run()
    return sorted(walk.files, key=lambda path: path.relative_to(root).parts)


@dataclass(frozen=True)
class _Folder:
    """A folder on the way: its path as the user sees it, where it really is, the split that its path names first, and
    where the folders really are through which the way leads, itself included.
    """

    path: Path
    real: Path
    split: str | None
    way: tuple[Path, ...]


class _Walk:
    """One pass over everything below a folder: first what is there itself, then what links lead to."""

    def __init__(self, root: Path, bad: BadRecords) -> None:
        self.files: list[Path] = []
        self._bad = bad
        real = Path(os.path.realpath(root))
        self._folders = [_Folder(root, real, None, (real,))]
        self._links: list[tuple[Path, _Folder]] = []
        self._seen: set[tuple[str | None, Path]] = {(None, real)}

    def run(self) -> None:
        """Fill `files`."""
        while self._folders or self._links:
            if self._folders:
                self._read(self._folders.pop())
            else:
                self._links.sort(reverse=True)
                self._follow(*self._links.pop())

    def _read(self, folder: _Folder) -> None:
        try:
            with os.scandir(folder.path) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self._bad.add(str(folder.path), unreadable(error))
            return
        if _HUB_CACHE.issubset(entry.name for entry in found):
            raise RequestError(
                f"{printable(str(folder.path))} is what the hub's library keeps a data set in; name a folder in its "
                "folder snapshots"
            )
        for entry in found:
            path = folder.path / entry.name
            if is_hidden(Path(entry.name)):
                self._leave_out(path, "hidden")
            elif entry.is_symlink():
                self._links.append((path, folder))
            else:
                self._take(path, folder.real / entry.name, folder)

    def _follow(self, path: Path, folder: _Folder) -> None:
        try:
            real = Path(os.path.realpath(path, strict=True))
        except OSError as error:
            self._bad.add(str(path), _broken(path, error))
            return
        if any(step.is_relative_to(real) for step in folder.way):
            self._leave_out(path, "a link to a folder that it lies in")
        else:
            self._take(path, real, folder)

    def _take(self, path: Path, real: Path, folder: _Folder) -> None:
        """Note a file, or a folder that is to be read."""
        try:
            kind = kind_of(os.stat(path).st_mode)
        except OSError as error:
            self._bad.add(str(path), unreadable(error))
            return
        split = folder.split or split_called(path.name)
        if kind not in (None, "a folder"):
            self._bad.add(str(path), f"it is {kind}, and no ordinary file")
        elif (split, real) in self._seen:
            self._leave_out(path, f"the same as {real}, which is read already")
        else:
            self._seen.add((split, real))
            if kind is None:
                self.files.append(path)
            else:
                self._folders.append(_Folder(path, real, split, (*folder.way, real)))

    def _leave_out(self, path: Path, why: str) -> None:
        self._bad.leave_out(1, [(str(path), why)])


def _missing(root: Path) -> str:
    if root.is_symlink():
        return f"{printable(str(root))}: {_broken(root, None)}"
    try:
        beside = sorted(os.listdir(root.parent))
    except OSError:
        beside = []
    return (
        f"there is no file or folder {printable(str(root))}{did_you_mean(root.name, beside)}\n"
        f"a data set of the Hugging Face hub is written {HUB_PREFIX}<owner/name>"
    )


def _broken(path: Path, error: OSError | None) -> str:
    """What is wrong with a link, in words."""
    if error is not None and error.errno == errno.ELOOP:
        return "it is a link that leads back to itself"
    if error is not None and error.errno not in (errno.ENOENT, errno.ENOTDIR):
        return unreadable(error)
    return f"it is a link to {printable(os.readlink(path))}, which is not there"
