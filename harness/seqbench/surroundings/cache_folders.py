"""Folders for what libraries keep between runs, where the user's own cannot hold it: none of them is worth a run."""

import os
import stat
import tempfile
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path


def provide_cache_folders(environment: MutableMapping[str, str]) -> None:
    """Point libraries to a temporary folder where there is no home, or nothing can be written into it.

    Without a home, Triton and the hub's library would make a folder named "~" where the command is typed. What can be
    read there stays where it is: only a home that does not exist takes the hub's cache with it. What the user has set
    stays, unless it cannot be written.
    """
    home = _home(environment)
    caches = _named(environment, "XDG_CACHE_HOME") or (home / ".cache" if home else None)
    settings = _named(environment, "XDG_CONFIG_HOME") or (home / ".config" if home else None)
    wanted: dict[str, str] = {}
    if home is None and caches is None:
        wanted |= {"XDG_CACHE_HOME": "", "HF_HOME": "huggingface"}
        wanted = {name: folder for name, folder in wanted.items() if name not in environment}
    if not _holds(environment, "MPLCONFIGDIR", caches, settings):
        wanted["MPLCONFIGDIR"] = "matplotlib"
    if not _holds(environment, "TRITON_CACHE_DIR", _named(environment, "TRITON_HOME") or home):
        wanted["TRITON_CACHE_DIR"] = "triton"
    # Without any place to write to, each library says what it misses when it is used.
    with suppress(OSError):
        base = _temporary_folder() if wanted else None
        for name, folder in wanted.items():
            assert base is not None
            (base / folder).mkdir(parents=True, exist_ok=True)
            environment[name] = str(base / folder)


def _home(environment: MutableMapping[str, str]) -> Path | None:
    """The user's home, or None where there is none."""
    with suppress(RuntimeError):
        home = _named(environment, "HOME") or Path.home()
        return home if home.is_dir() else None
    return None


def _named(environment: MutableMapping[str, str], name: str) -> Path | None:
    return Path(environment[name]) if environment.get(name) else None


def _holds(environment: MutableMapping[str, str], name: str, *usual: Path | None) -> bool:
    """Whether files can be kept where the variable says, or else in all the usual folders."""
    named = _named(environment, name)
    return all(folder is not None and _is_writable(folder) for folder in ([named] if named else usual))


def _is_writable(folder: Path) -> bool:
    """Whether something can be written into a folder, or the folder be made."""
    with suppress(OSError):
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    return False


def _temporary_folder() -> Path:
    """The same for all commands of a user; never one that somebody else has made there."""
    shared = Path(tempfile.gettempdir()) / f"seqbench-{os.getuid()}"
    with suppress(FileExistsError):
        shared.mkdir(mode=0o700)
    found = shared.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
        return shared
    return Path(tempfile.mkdtemp(prefix="seqbench-"))
